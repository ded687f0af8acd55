"""moto on loopback that answers as late as a network would: python -m benchmarks.s3_server PORT MS.

Waiting happens per request and in parallel; the work itself is that of one Python process.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

BUCKET = "scale"
START_SECONDS = 60


@contextmanager
def served(milliseconds: float) -> Iterator[str]:
    """Start the server in a process of its own, point the environment at it, yield a bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.s3_server", str(port), str(milliseconds)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await(port)
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        import boto3

        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}"
    finally:
        server.terminate()
        server.wait()


def _await(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"moto did not answer within {START_SECONDS} s")


def main() -> None:
    """Serve until killed."""
    port, seconds = int(sys.argv[1]), float(sys.argv[2]) / 1000
    app = DomainDispatcherApplication(create_backend_app)

    def late(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        time.sleep(seconds)
        answer: Iterable[bytes] = app(environ, start)
        return answer

    run_simple("127.0.0.1", port, late, threaded=True)


if __name__ == "__main__":
    main()
