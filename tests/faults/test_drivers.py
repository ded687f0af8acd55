"""Several drivers on one run at once, and what makes a driver run a shard again; without Ray."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from distill_core.storage.manifest import Manifest
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tests.support.fault_runs import SHARDS, markers_of, planned_run, recover, start_driver
from tests.support.pipeline import manifest
from tests.support.stand_in import Notebook, Orders

pytestmark = pytest.mark.usefixtures("no_faults")

DRIVERS = 8
WAIT_SECONDS = 180


def test_eight_drivers_at_once_make_every_shard_once(
    undisturbed: Manifest, notebook: Notebook, tmp_path: Path
) -> None:
    run = planned_run(str(tmp_path), shards=SHARDS)
    contested = undisturbed.entries[0].shard
    notebook.order(Orders({contested: [f"meet {DRIVERS}"] * DRIVERS}, seconds=0.1))
    drivers = [start_driver(run, local=True) for _ in range(DRIVERS)]
    assert [driver.wait(timeout=WAIT_SECONDS) for driver in drivers] == [0] * DRIVERS

    assert len({attempt.pid for attempt in notebook.attempts()[contested]}) == DRIVERS
    assert manifest(run, "recover") == undisturbed
    markers = markers_of(ShardStore(run.store, "recover"))
    named = {info.path for marker in markers for info in marker.files}
    assert len(markers) == SHARDS
    assert {f"recover/data/{name}" for name in run.store.names("recover/data")} == named


def test_drivers_start_at_different_shards(notebook: Notebook, tmp_path: Path) -> None:
    run, starts = planned_run(str(tmp_path / "store"), shards=SHARDS), set()
    for number in range(6):
        other = shutil.copytree(tmp_path / "store", tmp_path / str(number))
        starts.add(recover(replace(run, store=Store(str(other))), local=True).finished[0])
    assert len(starts) > 1  # by chance alone, once in 12 ** 5 runs


def test_a_changed_setting_of_the_method_makes_every_shard_again(
    notebook: Notebook, tmp_path: Path
) -> None:
    recover(planned_run(str(tmp_path), shards=SHARDS), local=True)
    notebook.forget()
    recover(planned_run(str(tmp_path), "recover.lr=0.3", shards=SHARDS), local=True)
    assert {len(tries) for tries in notebook.attempts().values()} == {1}
    assert len(notebook.attempts()) == SHARDS


@pytest.mark.parametrize(
    "change", [["posttrain.epochs=9"], ["relabel.views=8"], ["relabel.crop=[0.2, 1.0]"]]
)
def test_a_changed_setting_of_a_later_stage_makes_no_shard_again(
    notebook: Notebook, tmp_path: Path, change: list[str]
) -> None:
    first = planned_run(str(tmp_path), shards=SHARDS)
    recover(first, local=True)
    notebook.forget()
    other = planned_run(str(tmp_path), *change, shards=SHARDS)
    recover(other, local=True)
    assert other.name != first.name
    assert not notebook.attempts()
    assert manifest(other, "recover") == manifest(first, "recover")


def test_changed_execution_settings_make_no_shard_again(
    notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recover(planned_run(str(tmp_path), shards=SHARDS), local=True)
    notebook.forget()
    for name in ("PREFECT_LOGGING_LEVEL", "RAY_BACKEND_LOG_LEVEL"):
        monkeypatch.setenv(name, "debug")
    how = {"workers": 4, "max_attempts": 9, "in_flight": 5, "job_timeout_seconds": 77}
    recover(planned_run(str(tmp_path), shards=SHARDS), local=True, **how)
    assert not notebook.attempts()
