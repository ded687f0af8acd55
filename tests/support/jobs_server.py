"""A server on the loopback that answers like Ray's Jobs API; its jobs run nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import ray

Job = dict[str, Any]


@dataclass
class JobsServer:
    """The jobs of a cluster that a test makes up."""

    url: str = ""
    jobs: dict[str, Job] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    is_away: bool = False  # a proxy answers 503
    headers: list[dict[str, str]] = field(default_factory=list)  # of all requests
    token: str | None = None
    stopped: list[str] = field(default_factory=list)
    on_submit: Callable[[Job], None] = lambda job: None

    def end(self, id: str, status: str, *, code: int | None = None, log: str = "") -> None:
        """End a job."""
        self.logs[id] = self.logs.get(id, "") + log
        self.jobs[id] |= {"status": status, "driver_exit_code": code, "message": log}

    def answer(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        """Return status and body."""
        self.headers.append(headers)
        if self.is_away:
            return 503, "the upstream is away"
        if self.token is not None and headers.get("authorization") != f"Bearer {self.token}":
            return 401, "Unauthorized"
        if path == "/api/version":
            return 200, {
                "version": "4",
                "ray_version": ray.__version__,
                "ray_commit": "",
                "session_name": "",
            }
        parts = path.strip("/").split("/")[1:]
        if parts == ["jobs"]:
            return (200, [*self.jobs.values()]) if method == "GET" else self._submit(body)
        if len(parts) < 2 or parts[1] not in self.jobs:
            return 404, "does not exist"
        return self._about(parts[1], parts[2:])

    def _submit(self, body: Job) -> tuple[int, Any]:
        if (id := body["submission_id"]) in self.jobs:
            return 500, f"Traceback ...\nValueError: {id} already exists."
        job = {key: body.get(key) for key in ("submission_id", "entrypoint", "metadata")}
        self.jobs[id] = {
            **job,
            "type": "SUBMISSION",
            "status": "RUNNING",
            "runtime_env": body["runtime_env"],
        }
        self.on_submit(self.jobs[id])
        return 200, {"job_id": id, "submission_id": id}

    def _about(self, id: str, rest: list[str]) -> tuple[int, Any]:
        if rest == ["logs"]:
            return 200, {"logs": self.logs.get(id, "")}
        if rest == ["stop"]:
            self.stopped.append(id)
            self.end(id, "STOPPED")
            return 200, {"stopped": True}
        return 200, self.jobs[id]


@contextmanager
def jobs_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobsServer]:
    """Serve until the end of the block, to a process that has no token and no headers of Ray."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_JOB_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    state = JobsServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or "null")
            status, answer = state.answer(
                self.command, self.path, body, {k.lower(): v for k, v in self.headers.items()}
            )
            data = answer if isinstance(answer, str) else json.dumps(answer)
            self.send_response(status)
            self.send_header("Content-Length", str(len(data.encode())))
            self.end_headers()
            self.wfile.write(data.encode())

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield state
        finally:
            server.shutdown()
