"""A bucket whose policy lets drivers write everything and delete neither markers nor settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

from distill_core.config.load import load_run
from distill_core.errors import StorageRefused
from distill_core.storage import filesystems
from distill_core.storage.store import Store
from flows.orchestration import schedule_settings
from flows.orchestration.schedule_settings import ScheduleSettings
from tests.support.fault_kinds import error
from tests.support.fault_proxy import FaultProxy, Rule
from tests.support.s3_fixtures import s3_bucket

__all__ = ["s3_bucket"]

SETTINGS = ScheduleSettings("birds", "fine_tune", load_run("digits-demo"), None, {})
WHERE = ("new-version", "weekly")
REFUSED = Rule(error("AccessDenied", 403), "DELETE", times=None)


@pytest.fixture
def line(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Return what lies between every new store and the server; give it rules."""
    monkeypatch.setattr(filesystems, "FIRST_WAIT_SECONDS", 0.001)
    with FaultProxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def store(line: FaultProxy, s3_bucket: str) -> Store:
    """Return an empty store at the end of the line."""
    return Store(f"{s3_bucket}/{uuid4().hex}")


def test_settings_that_cannot_be_deleted_are_one_warning_and_the_next_call_deletes_them(
    line: FaultProxy, store: Store
) -> None:
    schedule_settings.write(store, *WHERE, SETTINGS)
    line.rules = [REFUSED]
    with pytest.raises(StorageRefused):
        schedule_settings.delete(store, *WHERE)
    warning = schedule_settings.try_delete(store, *WHERE)
    assert warning is not None
    assert len(warning.splitlines()) == 1
    assert store.uri(schedule_settings.path_of(*WHERE)) in warning
    assert "s3:DeleteObject" in warning
    assert "`distill schedule remove weekly` again" in warning
    assert schedule_settings.exist(store, *WHERE)
    line.rules = []
    assert schedule_settings.try_delete(store, *WHERE) is None
    assert not schedule_settings.exist(store, *WHERE)
    assert schedule_settings.try_delete(store, *WHERE) is None
