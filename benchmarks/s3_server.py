"""moto on loopback with two buckets: one answers at once, one as late as a network would.

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

NEAR, FAR = "scale-near", "scale-far"
LATE = 20  # milliseconds, about what a bucket in the same region takes to answer
START_SECONDS = 60


@contextmanager
def served() -> Iterator[tuple[str, str]]:
    """Start the server in a process of its own and point the environment at it.

    Yields:
        The URLs of the near and the far bucket.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.s3_server", str(port)]
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

        for bucket in (NEAR, FAR):
            boto3.client("s3").create_bucket(Bucket=bucket)
        yield f"s3://{NEAR}", f"s3://{FAR}"
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
    """Serve on the port that is the argument, until killed."""
    app = DomainDispatcherApplication(create_backend_app)

    def late(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith(f"/{FAR}/"):
            time.sleep(LATE / 1000)
        answer: Iterable[bytes] = app(environ, start)
        return answer

    run_simple("127.0.0.1", int(sys.argv[1]), late, threaded=True)


if __name__ == "__main__":
    main()
