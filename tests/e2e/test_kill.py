"""SIGKILL of an actor in a shard and of the driver in a stage: no work is lost or repeated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from distill_core.storage.shard_store import ShardStore
from tasks.run import Run
from tests.support.pipeline import execute, manifest, same_teacher, tiny_run
from tests.support.waiting import WAIT_SECONDS, wait_until

pytestmark = pytest.mark.cluster

# Eight shards per image set, each long enough to be hit in the middle.
LONG = ("ipc=8", "recover.steps=80", 'posttrain.sets=["distilled"]')


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run whose recover stage was not disturbed."""
    run = tiny_run(tmp_path_factory.mktemp("undisturbed"), *LONG)
    execute(run, "ingest", "squeeze", "recover")
    return run


@pytest.fixture
def run(undisturbed: Run, tmp_path: Path) -> Run:
    """Return the same run, its teacher made, its images not."""
    return same_teacher(undisturbed, tmp_path, *LONG)


@pytest.fixture
def driver(run: Run) -> Iterator[subprocess.Popen[bytes]]:
    """Start a driver on Ray; kill what is left of it afterwards."""
    command = [sys.executable, "-m", "tests.support.drive", run.store.url, run.name, "2", "recover"]
    process = subprocess.Popen(command, start_new_session=True)
    yield process
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)


def committed(run: Run) -> frozenset[str]:
    """Return the keys of the image shards that are done."""
    return ShardStore(run.store, "recover").done()


def actors_of(pid: int) -> list[psutil.Process]:
    """Return the recover actors of a driver's Ray cluster."""
    family = psutil.Process(pid).children(recursive=True)
    return [child for child in family if "RecoverWorker" in " ".join(child.cmdline())]


def test_a_killed_actor_costs_its_shard_a_retry_and_nothing_else(
    undisturbed: Run, run: Run, driver: subprocess.Popen[bytes]
) -> None:
    wait_until(lambda: len(committed(run)) >= 1, "the first shard")
    victim = actors_of(driver.pid)[0]
    victim.send_signal(signal.SIGKILL)
    before = len(committed(run))
    assert driver.wait(timeout=WAIT_SECONDS) == 0
    assert before < len(manifest(undisturbed, "recover").entries), "the kill came too late"
    assert manifest(run, "recover") == manifest(undisturbed, "recover")


def test_after_a_killed_driver_resume_runs_only_what_is_missing(
    undisturbed: Run, run: Run, driver: subprocess.Popen[bytes]
) -> None:
    wait_until(lambda: len(committed(run)) >= 2, "two shards")
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait(timeout=30)
    wait_until(lambda: not psutil.pid_exists(driver.pid), "the driver to be gone")
    survivors = committed(run)
    stamps = {path: path.stat().st_mtime_ns for path in marker_files(run)}
    assert 2 <= len(survivors) < len(manifest(undisturbed, "recover").entries)

    distill("resume", run.name, "--store", run.store.url, "--local")
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert manifest(run, "recover") == manifest(undisturbed, "recover")
    assert "verified" in distill("verify", run.name, "--store", run.store.url)


def marker_files(run: Run) -> list[Path]:
    """Return the marker files of the recover stage."""
    return sorted(Path(run.store.url, "recover", "_done").iterdir())


def distill(*arguments: str) -> str:
    """Run the command line; it must succeed."""
    command = [sys.executable, "-m", "flows.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
