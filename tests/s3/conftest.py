"""An S3 server on loopback for all tests of this folder, reached as users reach theirs.

The address and the credentials are in the environment, as in production, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from moto.server import ThreadedMotoServer

from distill_core.storage.store import Store

BUCKET = "distill-tests"


@pytest.fixture(scope="session")
def s3_bucket() -> Iterator[str]:
    """Start moto, point the environment at it, make a bucket and return its URL."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        import boto3

        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}"
    server.stop()


@pytest.fixture
def s3_store(s3_bucket: str) -> Store:
    """Return an empty store in the bucket."""
    return Store(f"{s3_bucket}/{uuid4().hex}")
