"""The fixture of a bucket; `DISTILL_TEST_S3` selects the server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

from distill_core.storage.store import Store
from tests.support.s3_servers import SERVERS


def unique_name() -> str:
    """Return a new name for a bucket or a prefix.

    It has digits only: rules of a `FaultProxy` look for words in addresses, and hexadecimal digits
    spell some of them.
    """
    return f"{uuid4().int:039d}"


@pytest.fixture(scope="session")
def s3_bucket() -> Iterator[str]:
    """Start the server, point the environment at it, make a bucket and return its URL."""
    import boto3

    bucket = f"distill-{unique_name()[:15]}"
    start = SERVERS[os.environ.get("DISTILL_TEST_S3", "moto")]
    with start() as environment, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=bucket)
        yield f"s3://{bucket}"


@pytest.fixture
def s3_store(s3_bucket: str) -> Store:
    """Return an empty store in the bucket."""
    return Store(f"{s3_bucket}/{unique_name()}")
