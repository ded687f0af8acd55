"""Garbage collection beside a run: the run ends as an undisturbed one, and garbage goes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distill_core.config.load import load_run
from distill_core.storage.manifest import Manifest, load_manifest
from distill_core.storage.shard_store import ShardStore, new_token
from distill_core.storage.store import Store
from tasks.run import Run, create_run
from tasks.stages.table import chained_kinds, stages_of
from tests.support.pipeline import execute
from tests.support.stopping import SMALL, Driver

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

DAYS_AGO = 2 * 24 * 3600.0


def small_run(folder: Path) -> Run:
    """Register the small run in a folder."""
    preset, *overrides = SMALL
    return create_run(load_run(preset, overrides), Store(str(folder)))


def age(*files: Path) -> None:
    """Set the modification time of files to two days ago, beyond every grace period here."""
    for file in files:
        then = file.stat().st_ctime - DAYS_AGO
        os.utime(file, (then, then))


def age_committed(run: Run) -> int:
    """Make every committed shard of a store two days old, and return their number."""
    root, markers = Path(run.store.url), 0
    for kind in chained_kinds():
        shards = ShardStore(run.store, kind)
        for key in shards.done():
            marker = shards.marker(key)
            assert marker is not None
            age(root / shards.marker_path(key), *(root / info.path for info in marker.files))
            markers += 1
    return markers


def copied_leftover(run: Run) -> Path:
    """Return a file as an interrupted attempt leaves it, two days old."""
    (data,) = Path(run.store.url, "squeeze", "data").glob("*.safetensors")
    key = data.name.partition("-")[0]
    leftover = data.with_name(f"{key}-{new_token()}.safetensors")
    shutil.copy(data, leftover)
    age(leftover)
    return leftover


def collect(run: Run) -> None:
    """Run `distill gc` with the shortest grace period; it must succeed."""
    command = [sys.executable, "-m", "flows.cli", "gc", "--store", run.store.url, "--grace", "1h"]
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)


def manifests(run: Run) -> dict[str, Manifest]:
    """Return the manifests of a run by stage; stages that do not occur have none."""
    names = [str(stage) for stage in stages_of(run.config) if stage.kind in chained_kinds()]
    loaded = {name: load_manifest(run.store, run.name, name) for name in names}
    return {name: manifest for name, manifest in loaded.items() if manifest is not None}


def test_a_collection_beside_a_run_keeps_what_it_needs_and_removes_leftovers(
    tmp_path: Path,
) -> None:
    run = small_run(tmp_path / "store")
    execute(run, "ingest", "squeeze")
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(run.store.url, undisturbed)
    execute(small_run(undisturbed))
    leftover = copied_leftover(run)
    age(*(file for file in Path(run.store.url).rglob("*") if file.is_file()))

    arguments = ["run", *SMALL, "--store", run.store.url, "--workers", "2"]
    driver, counts = Driver(arguments, tmp_path / "home"), set()
    try:
        while driver.process.poll() is None:
            counts.add(age_committed(run))
            collect(run)
        assert driver.process.returncode == 0
    finally:
        driver.kill()
    assert len(counts) > 2, "the collections did not meet the run at work"
    assert not leftover.exists()
    assert {"squeeze", "recover", "relabel", "posttrain"} <= manifests(run).keys()
    assert manifests(run) == manifests(small_run(undisturbed))
