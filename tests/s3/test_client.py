"""The client of a bucket has the configured time-outs and attempts, and no second retry loop."""

from __future__ import annotations

from pathlib import Path

import pytest
from fsspec.config import conf

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


def test_a_profile_that_is_set_for_fsspec_is_used(
    s3_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by FSSPEC_S3_PROFILE, which fsspec reads into its settings when it is imported."""
    profiles = tmp_path / "credentials"
    profiles.write_text(
        "[chosen]\naws_access_key_id = KEY-OF-PROFILE\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profiles))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(conf, "s3", {"profile": "chosen"})
    filesystems._s3.cache_clear()
    opened, _ = filesystems.open_filesystem(s3_store.url)
    filesystems._s3.cache_clear()  # the clients of other tests have no profile
    assert "KEY-OF-PROFILE" in opened.url("s3://bucket/object")
