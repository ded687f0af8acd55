"""Whether the Ray that this process uses is still there.

Ray itself does not report it: without its raylet a driver waits for ever, and without its GCS (the
service that knows all nodes and actors) Ray ends the driver natively. A thread looks at both, and
`check` raises what it found in the thread that runs the stages.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from distill_core.errors import ClusterError

POLL_SECONDS = 0.5
NOTICE_SECONDS = 20.0  # that a call to Ray may take to return after the loss; then it hangs
CONNECT_SECONDS = 5.0
LOG_BYTES = 2**20  # of each log that is kept
CORE = {"raylet": "raylet", "gcs_server": "GCS"}  # without these Ray is gone
Look = Callable[[], str | None]  # returns what happened to Ray, or None while it is there


class RayWatch:
    """Looks at Ray until it is gone.

    Args:
        look: called again and again, by a thread of this watch.
        end: called after the loss is known, to end what is left of Ray.
        notice_seconds: how long the thread that made this watch may be in a call to Ray after
            the loss; then the process is sent a SIGTERM.
        in_call: returns whether the thread with an identifier is in a call to Ray.
    """

    def __init__(
        self,
        look: Look,
        *,
        end: Callable[[], object] = lambda: None,
        notice_seconds: float = NOTICE_SECONDS,
        in_call: Callable[[int], bool] = lambda thread: is_in_ray(thread),
    ) -> None:
        self._look, self._end, self._notice_seconds = look, end, notice_seconds
        self._in_call, self._user = in_call, threading.get_ident()
        self.loss: str | None = None  # what happened
        self.noticed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray watch", daemon=True)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch during a block, in which `check` refers to this watch."""
        global _watch
        outer, _watch = _watch, self
        self._thread.start()
        try:
            yield
        finally:
            _watch = outer
            self.noticed.set()  # from here on, the processes may end
            self._thread.join()

    def _run(self) -> None:
        while not self.noticed.wait(POLL_SECONDS):
            if (loss := self._look()) is not None:
                self.loss = loss
                self._end()
                self._end_a_call_that_hangs()
                break

    def _end_a_call_that_hangs(self) -> None:
        """Send this process a SIGTERM if a call to Ray does not return; it may do other things."""
        since = time.monotonic()
        while not self.noticed.wait(min(POLL_SECONDS, self._notice_seconds)):
            now = time.monotonic()
            if not self._in_call(self._user):
                since = now
            elif now - since >= self._notice_seconds:
                os.kill(os.getpid(), signal.SIGTERM)
                return


def is_in_ray(thread: int) -> bool:
    """Return whether the thread with an identifier is in a call to Ray."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] == "ray":
            return True
        frame = frame.f_back
    return False


def check() -> None:
    """Raise if the Ray that is in use is gone.

    Raises:
        ClusterError: it ended, or cannot be reached any more.
    """
    if _watch is not None and _watch.loss is not None:
        _watch.noticed.set()
        raise ClusterError(_watch.loss)


def lost() -> str | None:
    """Return what happened to the Ray that is in use, or None while it is there."""
    return None if _watch is None else _watch.loss


class OwnRay:
    """The processes of a Ray that this process has started.

    Args:
        processes: by their names in Ray's node.
        logs: folder of their logs, which goes with the session.
    """

    def __init__(
        self, processes: Mapping[str, Sequence[subprocess.Popen[bytes]]], logs: Path
    ) -> None:
        self._processes, self._logs = processes, logs

    def look(self) -> str | None:
        """Return which core process has ended, how, and where its log is."""
        for name, role in CORE.items():
            for process in self._processes.get(name, ()):
                if (code := process.poll()) is not None:
                    kept = _keep_logs(self._logs, name)
                    return f"Ray on this machine is gone: its {role} {_ending(code)}.{kept}"
        return None

    def end(self) -> None:
        """Kill the other processes; workers end with the raylet.

        The GCS stays: where it lives, calls to Ray still have an answer, and Ray's own shutdown
        ends it.
        """
        for name, group in self._processes.items():
            for process in group if name != "gcs_server" else ():
                with suppress(OSError):
                    process.kill()


def reachable(addresses: Mapping[str, tuple[str, int]], away_seconds: float) -> Look:
    """Look whether the ports of a cluster of others answer.

    Args:
        addresses: host and port of each service, by its name for messages.
        away_seconds: that one of them may be away.
    """
    since: dict[str, float] = {}

    def look() -> str | None:
        for name, address in addresses.items():
            if (problem := _connection_problem(address)) is None:
                since.pop(name, None)
                continue
            first = since.setdefault(name, time.monotonic())
            if (away := time.monotonic() - first) > away_seconds:
                host, port = address
                return (
                    f"The Ray cluster is gone: its {name} at {host}:{port} has not answered for "
                    f"{away:.0f} s ({problem}). Check that its head is running."
                )
        return None

    return look


def _connection_problem(address: tuple[str, int]) -> OSError | None:
    try:
        socket.create_connection(address, CONNECT_SECONDS).close()
    except OSError as error:
        return error
    return None


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"


def _keep_logs(logs: Path, name: str) -> str:
    """Copy the ends of the logs of a process to a file of this user; return where it is."""
    try:
        with tempfile.NamedTemporaryFile("wb", prefix="distill-ray-", delete=False) as file:
            for log in sorted(logs.glob(f"{name}*")):
                file.write(f"==> {log.name}\n".encode())
                with log.open("rb") as source:
                    source.seek(max(0, log.stat().st_size - LOG_BYTES))
                    shutil.copyfileobj(source, file)
    except OSError:
        return ""
    return f" Its log is in {file.name}."


_watch: RayWatch | None = None
