"""S3 servers on loopback, reached as users reach theirs: through the environment alone."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tests.support.repository import ROOT

RGW = ROOT / "deploy" / "ceph" / "rgw.sh"


@contextmanager
def moto() -> Iterator[Mapping[str, str]]:
    """Serve a bucket store out of this process's memory, and yield its environment."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    app, turn = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def one_at_a_time(*request: Any) -> Any:
        # moto looks and writes in two steps; what it stands for is atomic.
        with turn:
            return app(*request)

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def ceph() -> Iterator[Mapping[str, str]]:
    """Yield the environment of a real Ceph RGW: the one that runs, or one of our own."""
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    running = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://127.0.0.1:")
    if running and all(name in os.environ for name in names):
        yield {name: os.environ[name] for name in names}
        return
    said = subprocess.run([RGW, "start"], check=True, stdout=subprocess.PIPE, text=True).stdout
    try:
        exports = (line.removeprefix("export ") for line in said.splitlines())
        yield dict(line.split("=", 1) for line in exports if line)
    finally:
        subprocess.run([RGW, "stop"], check=True, stdout=subprocess.DEVNULL)


SERVERS: dict[str, Callable[[], AbstractContextManager[Mapping[str, str]]]] = {
    "moto": moto,
    "ceph": ceph,
}
