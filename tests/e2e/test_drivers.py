"""Several drivers on one run do not disturb each other, and a killed one is known by its record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from distill_core.storage.shard_store import ShardStore, utc_now
from flows.status.status import Activity, run_activity, run_status
from tasks.run import Run
from tasks.runs.drivers import read_drivers
from tasks.stages.names import StageId
from tasks.stages.plan import manifests_of
from tasks.stages.table import sharded_kinds
from tests.support.pipeline import TINY, execute, manifest, same_teacher, tiny_run
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

DRIVERS = 3
LONG = ("recover.steps=500", "posttrain.sets=[distilled]")  # seconds per shard
WAIT_SECONDS = 300


def start(*words: str) -> subprocess.Popen[bytes]:
    """Start a command without Prefect and Ray."""
    return subprocess.Popen([sys.executable, "-m", "flows.cli", *words, "--local"])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return the run that one driver has made."""
    run = tiny_run(tmp_path_factory.mktemp("alone"))
    execute(run)
    return run


def commits(run: Run) -> Counter[tuple[str, str]]:
    """Return how many drivers recorded the commit of a shard, by stage and key."""
    parts = (run.store.read(run.path("events", n)) for n in run.store.names(run.path("events")))
    events = [json.loads(line) for part in parts for line in part.decode().splitlines()]
    ended = [event for event in events if event["event"] == "job_finished" and event["won"]]
    return Counter((event["stage"], event["key"]) for event in ended if event["stage"] != "ingest")


def test_three_drivers_at_once_make_every_shard_once_and_the_same_bytes(
    alone: Run, tmp_path: Path
) -> None:
    run = Run(alone.name, alone.config, tiny_run(tmp_path).store)
    words = ("run", "digits-demo", *TINY, "--store", run.store.url)
    drivers = [start(*words) for _ in range(DRIVERS)]
    assert [driver.wait(timeout=WAIT_SECONDS) for driver in drivers] == [0] * DRIVERS

    assert run_status(run).complete
    stages = [kind for kind in sharded_kinds() if manifests_of(run, StageId(kind))]
    for name in (name for kind in stages for name in manifests_of(run, StageId(kind))):
        assert manifest(run, str(name)) == manifest(alone, str(name)), name
    for stage in stages:
        shard_store = ShardStore(run.store, stage)
        markers = [marker for marker in shard_store.markers(sorted(shard_store.done())) if marker]
        named = {info.path for marker in markers for info in marker.files}
        assert {f"{stage}/data/{name}" for name in run.store.names(f"{stage}/data")} == named
        left = run.store.folders(f"{stage}/checkpoints")  # empty ones stay on a disk
        assert not any(run.store.names(f"{stage}/checkpoints/{folder}") for folder in left)
        assert {(stage, marker.key): 1 for marker in markers}.items() <= commits(run).items()
    assert set(commits(run).values()) == {1}
    records = read_drivers(run)
    assert [(one.state, one.running) for one in records] == [("finished", ())] * DRIVERS
    assert len({one.pid for one in records}) == DRIVERS


@pytest.fixture
def run(alone: Run, tmp_path: Path) -> Run:
    """Return a run whose teacher is made, its images not."""
    return same_teacher(alone, tmp_path, *LONG)


@pytest.fixture
def driver(run: Run) -> Iterator[subprocess.Popen[bytes]]:
    """Start a driver; kill what is left of it afterwards."""
    process = start("resume", run.name, "--store", run.store.url)
    yield process
    if process.poll() is None:
        process.kill()
    process.wait(timeout=30)


def recover_now(run: Run, later: timedelta = timedelta(0)) -> Activity:
    """Return the recover stage in `distill status`, now or some time later."""
    return run_activity(run, run_status(run).stages, now=utc_now() + later).stages["recover"]


def test_the_shards_of_a_killed_driver_are_orphaned_until_another_makes_them(
    run: Run, driver: subprocess.Popen[bytes]
) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (seen := recover_now(run)).running:
        assert time.monotonic() < deadline, "the driver never said what runs"
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait(timeout=30)
    assert {claim.driver for claim in seen.running} == {read_drivers(run)[0].id}

    a_minute_later = recover_now(run, timedelta(seconds=61))
    assert a_minute_later.running == ()
    assert list(a_minute_later.orphaned) == [claim.shard for claim in seen.running]
    execute(run, "recover")
    assert recover_now(run, timedelta(seconds=61)).orphaned == ()


TRAINING = ("squeeze.training.epochs=8", "posttrain.sets=[distilled]")


@pytest.fixture
def training(tmp_path: Path) -> Run:
    """Return a run whose teacher trains for a while."""
    run = tiny_run(tmp_path, *TRAINING)
    execute(run, "ingest")
    return run


def in_squeeze(run: Run) -> tuple[str, ...]:
    """Return the drivers that train the teacher, by their records."""
    return tuple(
        record.id
        for record in read_drivers(run)
        if any(shard.stage == "squeeze" for shard in record.running)
    )


def starts_of(run: Run) -> Counter[str]:
    """Return how often a worker began the teacher, by driver."""
    starts: Counter[str] = Counter()
    for name in run.store.names(run.path("events")):
        lines = run.store.read(run.path("events", name)).decode().splitlines()
        begun = [event for event in map(json.loads, lines) if event["event"] == "job_started"]
        starts[name.partition("-")[0]] += sum(event["stage"] == "squeeze" for event in begun)
    return +starts


def test_a_driver_started_during_a_squeeze_leaves_the_training_to_the_first(training: Run) -> None:
    first = start("resume", training.name, "--store", training.store.url)
    (holder,) = wait_until(lambda: in_squeeze(training), "the first driver to train")
    second = start("resume", training.name, "--store", training.store.url)
    assert [each.wait(timeout=WAIT_SECONDS) for each in (first, second)] == [0, 0]
    assert run_status(training).complete
    assert starts_of(training) == {holder: 1}
    left = training.store.folders("squeeze/checkpoints")
    assert not any(training.store.names(f"squeeze/checkpoints/{folder}") for folder in left)
