"""A server of PREFECT_API_URL that is dead, or no server of Prefect: one line, nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows.maintenance import libraries

DEAD = "http://me:hush@127.0.0.1:9/api"


class AnyPage(BaseHTTPRequestHandler):
    """Answers every request with a page, as a server does when `/api` was left out."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def web_page() -> Iterator[str]:
    """Serve pages that are not Prefect's API; return the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), AnyPage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("command", ["run", "redistill"])
def test_a_dead_server_is_one_line_before_anything_is_written(command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", command, "digits-demo", "--store", "store"],
        env={**os.environ, "PREFECT_API_URL": DEAD, "PREFECT_HOME": str(tmp_path / "prefect")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (75, "")
    assert "no answer from 127.0.0.1:9" in line
    assert "hush" not in line
    assert not (tmp_path / "store").exists()


def test_doctor_fails_where_the_server_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", DEAD)
    _, check = libraries.check_prefect()
    assert check.level == "FAIL"
    assert "no answer from 127.0.0.1:9" in str(check)
    assert "hush" not in str(check)


def test_doctor_fails_where_another_server_answers(
    monkeypatch: pytest.MonkeyPatch, web_page: str
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", web_page)
    _, check = libraries.check_prefect()
    assert check.level == "FAIL"
    assert "with `/api` at the end" in check.detail


def test_doctor_needs_no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    _, check = libraries.check_prefect()
    assert (check.level, check.detail) == ("OK", "a temporary server per run")
