"""Seats for which the cluster has no place do not delay verdicts."""

from __future__ import annotations

import pytest

from distill_core.errors import DivergedError, StorageRefused
from tasks.jobs import Job
from tasks.pools.dispatch import dispatch
from tasks.pools.events import Event, OnProgress, Raised, Ready
from tests.support.fake_pool import Clock, FakePool, Play, fail_with, succeed
from tests.support.fakes import make_jobs

HOUR = 3600.0


class NodePool(FakePool):
    """Each worker is on a node of its own."""

    def _build(self, worker: int) -> Event:
        return Ready(worker, f"node {worker}")


def lasting(clock: Clock, seconds: float, play: Play) -> Play:
    """Let every job take a while."""

    def act(worker: int, job: Job) -> Event | None:
        clock.now += seconds
        return play(worker, job)

    return act


@pytest.mark.parametrize("unused", [(), (4, 5)])
def test_a_training_that_diverges_on_the_only_node_is_tried_once(unused: tuple[int, ...]) -> None:
    clock = Clock()
    play = lasting(clock, 20 * HOUR, fail_with(DivergedError("loss is nan"), "s3"))
    pool = FakePool(6, play, clock=clock, never_ready=unused)
    result = dispatch(make_jobs(6), pool, clock=clock)
    assert list(result.failed) == ["s3"]
    assert pool.order.count("s3") == 1
    assert len(result.receipts) == 5


@pytest.mark.parametrize("unused", [(), (6, 7)])
def test_a_stage_whose_workers_all_refuse_does_not_wait_for_unused_seats(
    unused: tuple[int, ...],
) -> None:
    def refuse(worker: int, job: Job) -> Event:
        return Raised(worker, job.key, StorageRefused("the credentials have expired"), "")

    clock = Clock()
    pool = NodePool(8, lasting(clock, 0.1, refuse), clock=clock, never_ready=unused)
    with pytest.raises(StorageRefused, match="no worker can go on"):
        dispatch(make_jobs(219), pool, clock=clock)
    assert clock.now < 120


def test_at_the_start_the_workers_that_come_first_do_not_decide_for_the_others() -> None:
    def play(worker: int, job: Job) -> Event | None:
        if worker == 0:
            return Raised(worker, job.key, DivergedError("loss is nan"), "")
        return succeed(worker, job)

    def come(on_progress: OnProgress) -> None:
        if clock.now > 20:
            pool.never_ready.clear()

    clock = Clock()
    pool = NodePool(4, lasting(clock, 1, play), clock=clock, never_ready=(1, 2, 3))
    pool.while_waiting = come
    result = dispatch(make_jobs(40), pool, clock=clock)
    assert result.failed == {}
    assert len(result.receipts) == 40
