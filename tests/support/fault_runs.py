"""Runs whose next stage is recover, with a stand-in for its worker so that torch is not needed.

python -m tests.support.fault_runs STORE RUN [KEY=VALUE of tasks.execution.Execution]...

runs that stage as a driver of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import IO

import pytest
import yaml

from distill_core.config.load import load_run
from distill_core.keys import NUMERICS
from distill_core.storage.manifest import Manifest, save_manifest
from distill_core.storage.markers import Marker, ShardFacts
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.execution import Execution
from tasks.pools.provider import PoolProvider
from tasks.run import Run, create_run, open_run
from tasks.runs import run_stage
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tasks.stages.table import STAGES
from tests.support.notes import Notes
from tests.support.stand_in import STAND_IN

CLASSES_PER_SHARD = 100
SHARDS = 12


class Watch(Notes):
    """Notes of a whole stage."""

    def stage_started(self, stage: str, total: int, done: int) -> None:
        """Ignore."""

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Ignore."""


def planned_run(store: str, *overrides: str, shards: int) -> Run:
    """Register a run of a number of class shards, with every stage before recover done."""
    chosen = (f"data.num_classes={shards * CLASSES_PER_SHARD}", "posttrain.sets=[distilled]")
    run = create_run(load_run("rehearsal-21k", (*chosen, *overrides)), Store(store))
    execution = Execution(store=store, local=True)
    with PoolProvider(execution) as pools:
        run_stage.run_stage(
            run, StageId("ingest"), execution=execution, observer=Watch(), pools=pools
        )
    squeeze = StageId("squeeze")
    (job,) = JobPlan(run).jobs(squeeze)[squeeze]
    teacher = ShardStore(run.store, "squeeze").commit(
        job.key,
        shard=job.shard,
        files={"safetensors": b"weights that nobody reads"},
        facts=ShardFacts(rows=1, classes=1, seconds=0.0, device="cpu"),
    )
    save_manifest(run.store, run.name, Manifest.of("squeeze", [teacher], numerics=NUMERICS))
    return run


def recover(run: Run, watch: Watch | None = None, **how: object) -> Watch:
    """Run the recover stage with the stand-in; return the observed events, or raise its error."""
    execution = Execution.model_validate({"store": run.store.url, **how})
    watch = watch or Watch()
    with pytest.MonkeyPatch.context() as patch, PoolProvider(execution) as pools:
        patch.setitem(STAGES, "recover", replace(STAGES["recover"], worker=STAND_IN))
        run_stage.run_stage(
            run, StageId("recover"), execution=execution, observer=watch, pools=pools
        )
    return watch


def start_driver(
    run: Run, *, output: IO[bytes] | None = None, **how: object
) -> subprocess.Popen[bytes]:
    """Start a driver of the recover stage in a process of its own."""
    words = [f"{key}={value}" for key, value in how.items()]
    command = [sys.executable, "-m", "tests.support.fault_runs", run.store.url, run.name, *words]
    return subprocess.Popen(command, stdout=output, stderr=output)


def markers_of(shard_store: ShardStore) -> list[Marker]:
    """Return the marker of every shard that is done."""
    return [marker for key in shard_store.done() if (marker := shard_store.marker(key)) is not None]


def settings(words: Iterable[str]) -> dict[str, object]:
    """Return KEY=VALUE words as a mapping, values read as YAML."""
    pairs = (word.partition("=") for word in words)
    return {key: yaml.safe_load(value) for key, _, value in pairs}


if __name__ == "__main__":
    url, name, *words = sys.argv[1:]
    recover(open_run(Store(url), name), **settings(words))
