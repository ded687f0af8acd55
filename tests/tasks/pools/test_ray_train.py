"""A gang of two processes under Ray Train, on the same small Ray."""

from __future__ import annotations

import os

import pytest

from distill_core.machine_share import WORKERS
from tasks.execution import Execution
from tasks.jobs import Job, WorkerSpec
from tasks.pools.provider import PoolProvider
from tests.support.fakes import make_jobs
from tests.support.notes import Notes

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_cluster"),
]


def test_a_gang_computes_together_and_a_failing_rank_reports_its_error() -> None:
    notes = Notes()
    jobs = [*make_jobs(1, seconds=5), Job("k9", "s9", {"error": "DivergedError"})]
    with PoolProvider(Execution(store=".", num_cpus=0.5)) as pools:
        spec = WorkerSpec("tests.support.fakes:GangWorker")
        result = pools.gang(spec, jobs, processes=2, stage="squeeze", observer=notes)
    (receipt,) = result.receipts
    facts = {"sum": 3.0, "rank": 0, "size": 2, "cwd": os.getcwd(), WORKERS: "2"}
    assert receipt.summary == facts
    assert ("s0", 1, 2) in notes.progress
    failure = result.failed["s9"]
    assert (str(failure.error), failure.attempts) == ("s9 is poisoned", 1)
    assert "tests/support/fakes.py" in failure.traceback


def test_a_job_that_fewer_processes_can_do_starts_with_those_that_have_room() -> None:
    notes = Notes()
    execution = Execution(store=".", num_cpus=0.5, wait_for_workers_seconds=1)
    spec = WorkerSpec("tests.support.fakes:GangWorker")
    with PoolProvider(execution) as pools:
        jobs = make_jobs(1, seconds=5)
        result = pools.gang(spec, jobs, processes=64, least=1, stage="squeeze", observer=notes)
        present = pools.processes
    (receipt,) = result.receipts
    assert present == receipt.summary["size"]
    assert 1 <= receipt.summary["size"] < 64
    assert any("of 64 processes" in text for _, text in notes.notices)
