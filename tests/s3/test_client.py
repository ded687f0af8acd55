"""The client of a bucket has the configured time-outs and attempts, and no second retry loop."""

from __future__ import annotations

import pytest

from distill_core.storage import filesystems
from distill_core.storage.store import Store


@pytest.fixture
def filesystem(s3_store: Store) -> filesystems.Steady:
    """Return the file system of a store that has been used."""
    s3_store.put("x", b"x")
    opened, _ = filesystems.open_filesystem(s3_store.url)
    assert isinstance(opened, filesystems.Steady)
    return opened


def test_the_client_has_our_time_outs_and_attempts(filesystem: filesystems.Steady) -> None:
    config = filesystem.s3.meta.config
    assert config.connect_timeout == filesystems.CONNECT_SECONDS
    assert config.read_timeout == filesystems.READ_SECONDS
    assert config.retries["mode"] == "standard"
    assert config.retries["total_max_attempts"] == filesystems.REQUEST_ATTEMPTS
    assert config.request_checksum_calculation == "when_required"


def test_the_retry_loop_of_the_file_system_is_off(filesystem: filesystems.Steady) -> None:
    assert filesystem.retries == 1
