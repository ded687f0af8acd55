"""Prefect's own server may end, its messages may stay unsent: neither holds up the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from distill_core.errors import ClusterError
from flows import terminal
from flows.orchestration import api
from tests.support.waiting import wait_until

HANGS = """
import asyncio, logging, sys
from flows.orchestration import api
api.set_defaults()
from flows.orchestration.delivery import PrefectLog, delivering
from prefect._internal.concurrency.services import QueueService

class Sender(QueueService[str]):
    async def _handle(self, item: str) -> None:
        await asyncio.sleep(3600)

log = PrefectLog()
log.keep = "keep" in sys.argv
with log.receiving(), delivering(0.1):
    logging.getLogger("prefect._internal.concurrency").error("the payload of an event")
    logging.getLogger("prefect.events").warning("unable to connect")
    for _ in range(3):
        Sender.instance().send("a message")
    read = log.path.read_text()
assert "payload" in read and "unable" in read
print(log.path)
"""


@pytest.mark.parametrize("keep", ["keep", "remove"])
def test_messages_that_cannot_be_sent_are_logged_to_a_file_and_hold_up_no_exit(keep: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS, keep],
        env={k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    log = Path(done.stdout.strip())
    assert log.exists() == (keep == "keep")
    log.unlink(missing_ok=True)


def test_a_server_that_ends_is_replaced_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    api.set_defaults()
    from flows.orchestration import temporary_server
    from flows.orchestration.delivery import PrefectLog

    warnings, log = list[str](), PrefectLog()
    monkeypatch.setattr(terminal, "warn", warnings.append)

    class Idle(temporary_server._Server):
        """A process that serves nothing."""

        def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
            self.server_process = subprocess.Popen(["sleep", "600"])
            return self.server_process

    server = Idle(tmp_path / "log")
    first = server._run_uvicorn_command()
    try:
        with log.receiving(), temporary_server._replacing(server, log):
            first.kill()
            wait_until(lambda: server.server_process is not first, "another process")
            assert server.server_process is not None
            assert server.ending() is None
            server.server_process.kill()
            wait_until(lambda: len(warnings) == 2, "the second warning")
    finally:
        server.stop()
    started, ended = warnings
    assert started.startswith("Prefect's temporary server has ended (SIGKILL). It is started again")
    assert ended.startswith("Prefect's temporary server has ended (SIGKILL). The run goes on")
    assert log.keep
    log.path.unlink()


def test_a_server_that_cannot_be_started_again_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api.set_defaults()
    from flows.orchestration import temporary_server
    from flows.orchestration.delivery import PrefectLog

    warnings, log = list[str](), PrefectLog()
    monkeypatch.setattr(terminal, "warn", warnings.append)

    class Unlucky:
        """Has ended, and no process is left."""

        def ending(self) -> str:
            return "SIGKILL"

        def replace(self) -> None:
            raise OSError("Resource temporarily unavailable")

    with log.receiving(), temporary_server._replacing(cast("Any", Unlucky()), log):
        wait_until(lambda: len(warnings) == 2, "the second warning")
    assert "did not start again (Resource temporarily unavailable)" in warnings[1]
    log.path.unlink()


def test_a_home_that_cannot_be_written_is_refused_before_a_server_starts(tmp_path: Path) -> None:
    """Prefect would try again and again until the time is up: 75 s on a read-only root."""
    api.set_defaults()
    from flows.orchestration import temporary_server

    temporary_server._check_home(tmp_path / "new" / "prefect")
    assert (tmp_path / "new" / "prefect").is_dir()  # Prefect itself makes no parents
    (tmp_path / "file").touch()  # nobody can write below a file, not even root
    home = tmp_path / "file" / "prefect"
    with pytest.raises(ClusterError, match=f"its home {home} cannot be written.*PREFECT_HOME"):
        temporary_server._check_home(home)


def test_a_server_that_cannot_start_is_given_up_after_two_attempts(tmp_path: Path) -> None:
    api.set_defaults()
    from flows.orchestration import temporary_server
    from flows.orchestration.delivery import PrefectLog

    log = PrefectLog()
    server = temporary_server._Server(tmp_path / "log")
    server.server_process = cast(Any, subprocess.Popen(["sh", "-c", "exit 3"]))
    assert server.server_process is not None
    server.server_process.wait()
    server._failures = temporary_server.ATTEMPTS - 1
    with pytest.raises(ClusterError, match=r"did not start .*exit code 3, 2 times"):
        temporary_server._start(server, log, 60)
    log.path.unlink(missing_ok=True)
