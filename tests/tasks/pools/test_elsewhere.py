"""Jobs that other drivers run come last, or are left to them."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.jobs import Job, WorkerSpec
from tasks.pools.dispatch import dispatch
from tasks.pools.failures import DispatchResult
from tasks.pools.local import local_pool
from tests.support.fakes import make_jobs
from tests.support.notes import Notes

FAKE = WorkerSpec("tests.support.fakes:FakeWorker")


@dataclass
class Others:
    """Other drivers, as their records show them."""

    waits: bool
    held: set[str] = field(default_factory=set)
    until: dict[str, str] = field(default_factory=dict)  # held until another job is done here
    earlier: set[str] = field(default_factory=set)  # held once they run here, and begun before
    notes: Notes = field(default_factory=Notes)

    def holds(self, shard: str) -> bool:
        if shard in self.until:
            return self.until[shard] not in self.notes.finished
        return shard in self.held or self.precedes(shard)

    def precedes(self, shard: str) -> bool:
        return shard in self.earlier and shard in self.notes.started


def run(jobs: list[Job], others: Others, *, workers: int = 1) -> DispatchResult:
    """Dispatch to workers of this machine."""
    pool = local_pool(FAKE, workers=workers)
    try:
        return dispatch(jobs, pool, observer=others.notes, elsewhere=others)
    finally:
        pool.close()


def test_trainings_of_other_drivers_are_left_to_them() -> None:
    others = Others(waits=True, held={"s1", "s3"})
    result = run(make_jobs(4), others)
    assert others.notes.started == others.notes.finished == ["s0", "s2"]
    assert [job.shard for job in result.left] == ["s1", "s3"]
    assert result.failed == {}


def test_without_anything_else_to_do_no_worker_is_waited_for() -> None:
    others = Others(waits=True, held={"s0", "s1"})
    result = run(make_jobs(2), others)
    assert [job.shard for job in result.left] == ["s0", "s1"]
    assert others.notes.started == []


def test_a_training_that_becomes_free_is_run() -> None:
    others = Others(waits=True, until={"s0": "s2"})
    result = run(make_jobs(3), others)
    assert others.notes.finished == ["s1", "s2", "s0"]
    assert result.left == ()


def test_short_shards_of_other_drivers_come_last() -> None:
    others = Others(waits=False, held={"s0", "s2"})
    result = run(make_jobs(5), others)
    assert others.notes.finished == ["s1", "s3", "s4", "s0", "s2"]
    assert result.left == ()


def test_of_two_drivers_that_begin_a_training_the_later_one_stops_it() -> None:
    others = Others(waits=True, earlier={"s0"})
    jobs = [Job("k0", "s0", {"hang": 600}), *make_jobs(3, seconds=1)[1:]]
    result = run(jobs, others, workers=2)
    assert [job.shard for job in result.left] == ["s0"]
    assert sorted(others.notes.finished) == ["s1", "s2"]
    assert others.notes.retried == [("s0", "another driver began it before.")]
    assert others.notes.started.count("s0") == 1
