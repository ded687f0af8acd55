"""The doctor's checks of a cluster, and its limit of time, against servers on loopback."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows.maintenance import services
from flows.maintenance.findings import Check, begin, finished
from flows.maintenance.services import check_head, check_jobs_api

TOKEN = "0123456789abcdef"


class JobsApi(BaseHTTPRequestHandler):
    """Answers as the Jobs API of a cluster with a token does."""

    def do_GET(self) -> None:
        granted = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        self.send_response((200 if granted else 401) if self.path == "/api/version" else 404)
        self.end_headers()
        if granted:
            self.wfile.write(json.dumps({"ray_version": "2.60.0"}).encode())

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def head() -> Iterator[str]:
    """Serve the Jobs API; return host and port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), JobsApi)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_jobs_api_is_asked_with_the_token(head: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    for environment in ({"RAY_AUTH_TOKEN": TOKEN}, {"RAY_AUTH_TOKEN_PATH": f"{tmp_path}/token"}):
        (check,) = check_jobs_api(f"http://{head}", environment, "2.60.0")
        assert (check.level, check.detail) == ("OK", f"http://{head}, Ray 2.60.0")


@pytest.mark.parametrize("environment", [{}, {"RAY_AUTH_TOKEN": "another"}])
def test_a_refused_token_names_the_variables(head: str, environment: dict[str, str]) -> None:
    (check,) = check_jobs_api(f"http://{head}", environment)
    assert (check.level, "refuses the token (401)" in check.detail) == ("FAIL", True)
    assert "RAY_AUTH_TOKEN_PATH" in check.fix


def test_another_version_of_ray_is_a_warning(head: str) -> None:
    (check,) = check_jobs_api(f"http://{head}/", {"RAY_AUTH_TOKEN": TOKEN}, "2.61.0")
    assert (check.level, "runs Ray 2.60.0, this machine has 2.61.0" in check.detail) == (
        "WARN",
        True,
    )


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "127.0.0.1:9", "http://127.0.0.1:0"])
def test_a_jobs_api_that_does_not_answer_fails(address: str) -> None:
    (check,) = check_jobs_api(address, {})
    assert (check.level, address in check.detail) == ("FAIL", True)


def test_a_head_is_reachable_or_not(head: str) -> None:
    for address in (head, f"ray://{head}"):
        (check,) = check_head(address)
        assert (check.level, check.detail) == ("OK", f"{address} answers")
    for address in ("127.0.0.1:9", "127.0.0.1", "127.0.0.1:port", "[::1"):
        (check,) = check_head(address)
        assert (check.level, address in check.detail) == ("FAIL", True), address


@pytest.mark.parametrize("check", [check_head, check_jobs_api])
def test_the_credentials_of_an_address_are_not_repeated(check: object) -> None:
    assert callable(check)
    (found,) = check("http://me:hush@127.0.0.1:9")
    assert found.level == "FAIL"
    assert "hush" not in str(found)


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "ANSWER_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (check,) = check_jobs_api(f"http://127.0.0.1:{silent.getsockname()[1]}", {})
    assert (check.level, "no answer" in check.detail) == ("FAIL", True)


def test_a_check_without_an_end_is_reported() -> None:
    (check,) = finished("store", Future(), 0.01)
    assert (check.level, check.detail) == ("FAIL", "no answer within 0.01 s")


def test_the_error_of_a_check_reaches_the_caller() -> None:
    def broken() -> list[Check]:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        finished("store", begin(broken), 60)
