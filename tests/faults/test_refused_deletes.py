"""A bucket whose policy lets drivers write everything and delete neither markers nor settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distill_core.config.load import load_run
from distill_core.errors import ShardError, StorageError, StorageRefused
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from flows.orchestration import schedule_settings
from flows.orchestration.schedule_settings import ScheduleSettings
from tests.support.cli import Distill, distill
from tests.support.commits import KEY, commit
from tests.support.fabricate import finished_run, marker_path
from tests.support.fault_kinds import Fault, error, flipped_upload, halved_upload, lost_upload
from tests.support.fault_line import line, s3_bucket, store
from tests.support.fault_proxy import FaultProxy, Rule

__all__ = ["distill", "line", "s3_bucket", "store"]

SETTINGS = ScheduleSettings("birds", "fine_tune", load_run("digits-demo"), None, {})
WHERE = ("new-version", "weekly")
REFUSED = Rule(error("AccessDenied", 403), "DELETE", times=None)


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


@pytest.mark.parametrize("fault", [flipped_upload, halved_upload])
def test_a_damaged_marker_that_cannot_be_deleted_is_named_until_it_is_deleted(
    line: FaultProxy, store: Store, fault: Fault
) -> None:
    shards = ShardStore(store, "recover")
    altered = Rule(fault, "PUT", rf"_done/{KEY}", times=None)
    named = rf"^{re.escape(shards.uri(KEY))}: .*Delete it and run again to recreate this shard\.$"
    line.rules = [altered, REFUSED]
    with pytest.raises(ShardError, match=named):
        commit(shards)
    line.rules = [REFUSED]  # the line is whole again, and the policy as it was
    for read in (lambda: commit(shards), lambda: shards.markers([KEY])):
        with pytest.raises(ShardError, match=named):
            read()
    line.rules = []  # with the policy of a collector
    store.delete(shards.marker_path(KEY))
    assert commit(shards) == shards.marker(KEY)


def test_nothing_remains_of_a_marker_that_was_lost_on_its_way(
    line: FaultProxy, store: Store
) -> None:
    shards = ShardStore(store, "recover")
    line.rules = [Rule(lost_upload, "PUT", rf"_done/{KEY}", times=None), REFUSED]
    with pytest.raises(StorageError, match="cannot be written"):
        commit(shards)
    line.rules = [REFUSED]
    assert commit(shards) == shards.marker(KEY)


def test_resume_names_a_damaged_marker_and_writes_no_manifest_from_it(
    distill: Distill, tmp_path: Path
) -> None:
    run = finished_run(tmp_path)
    path = marker_path(run, "recover")
    manifest = run.path("recover.manifest.json")
    run.store.put(path, run.store.read(path)[:-20])
    run.store.delete(manifest)
    output = distill("resume", "tiny", "--store", run.store.url, "--local")
    (line,) = [line for line in output.err.splitlines() if line.startswith("distill: ")]
    assert output.code == 2
    assert run.store.uri(path) in line
    assert "Delete it and run again" in line
    assert not run.store.exists(manifest)
