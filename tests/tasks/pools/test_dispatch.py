"""The decisions of the dispatcher, with a scripted pool and a clock set by the test."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import pytest

from distill_core.errors import (
    ClusterError,
    ConfigError,
    DataError,
    DistillError,
    DivergedError,
    OutOfMemoryError,
    StorageError,
    StorageRefused,
)
from tasks.execution import RetryPolicy
from tasks.jobs import Job, Receipt
from tasks.pools.dispatch import dispatch
from tasks.pools.events import Done, Event, Lost, OnProgress, Raised
from tasks.pools.failures import DispatchResult
from tests.support.fake_pool import Clock, FakePool, crash_with, fail_with, succeed
from tests.support.fakes import make_jobs
from tests.support.notes import Notes


def run(
    jobs: Sequence[Job], pool: FakePool, notes: Notes | None = None, **policy: float
) -> DispatchResult:
    """Dispatch with the pool's own clock."""
    chosen = RetryPolicy(**policy)  # type: ignore[arg-type]
    return dispatch(jobs, pool, policy=chosen, stage="recover", observer=notes, clock=pool.clock)


def shards_of(result: DispatchResult) -> list[str]:
    """Return the names of what was done."""
    return sorted(receipt.shard for receipt in result.receipts)


def test_every_job_is_done_once_and_reported_once() -> None:
    notes, pool = Notes(), FakePool(3)
    result = run(make_jobs(20), pool, notes)
    assert shards_of(result) == sorted(f"s{n}" for n in range(20))
    assert sorted(notes.finished) == shards_of(result)
    assert sorted(pool.order) == shards_of(result)
    assert not result.failed
    assert result.losses == 0


def test_a_notice_of_a_worker_is_reported_with_its_job_and_not_at_the_end() -> None:
    def odd(worker: int, job: Job) -> Event | None:
        receipt = Receipt(job.key, job.shard, notices=("a checkpoint could not be read.",))
        return Done(worker, receipt)

    notes, pool, finished = Notes(), FakePool(1, odd), list[int]()
    pool.while_waiting = lambda on_progress: finished.append(len(notes.notices))
    run(make_jobs(3), pool, notes, in_flight=1)
    assert finished == [0, 0, 1, 2]
    assert notes.notices[0] == ("recover", "s0: a checkpoint could not be read.")


def test_without_jobs_the_pool_is_not_used() -> None:
    pool = FakePool(1)
    pool.wait = None  # type: ignore[assignment,method-assign]
    assert run([], pool).receipts == ()


def test_no_worker_ever_holds_more_jobs_than_allowed() -> None:
    for limit in (1, 2, 3):
        pool = FakePool(2)
        run(make_jobs(50), pool, in_flight=limit)
        assert pool.deepest == limit


def test_jobs_start_in_the_order_given() -> None:
    pool = FakePool(2)
    run(make_jobs(30), pool)
    assert pool.order == [f"s{n}" for n in range(30)]


def test_near_the_end_no_job_waits_behind_a_busy_worker() -> None:
    pool = FakePool(3)
    run(make_jobs(3), pool)
    assert pool.deepest == 1


def test_a_job_that_raises_gets_three_attempts_and_keeps_its_last_error() -> None:
    notes = Notes()
    result = run(make_jobs(6), FakePool(2, fail_with(ValueError("bad pixel"), "s2")), notes)
    failure = result.failed["s2"]
    assert failure.attempts == 3
    assert notes.retried == [("s2", "ValueError: bad pixel")] * 2
    assert notes.failed == [("s2", "ValueError: bad pixel")]
    record = json.loads(json.dumps(failure.to_dict()))
    assert record == {
        "attempts": 3,
        "error": "ValueError: bad pixel",
        "type": "ValueError",
        "traceback": "its traceback",
    }
    assert len(result.receipts) == 5


def test_an_attempt_that_succeeds_after_a_failed_one_is_a_success() -> None:
    tries: list[str] = []

    def play(worker: int, job: Job) -> Event | None:
        tries.append(job.shard)
        if tries.count(job.shard) == 1:
            return Raised(worker, job.key, StorageError("503"), "")
        return succeed(worker, job)

    result = run(make_jobs(4), FakePool(2, play))
    assert len(result.receipts) == 4
    assert not result.failed


@pytest.mark.parametrize(
    "error",
    [
        DivergedError("loss is nan"),
        ConfigError("no such term"),
    ],
)
def test_deterministic_errors_are_not_retried(error: Exception) -> None:
    notes = Notes()
    result = run(make_jobs(3), FakePool(1, fail_with(error, "s1")), notes)
    assert result.failed["s1"].attempts == 1
    assert result.failed["s1"].error is error
    assert not notes.retried


def test_a_refused_job_is_given_up_once_its_only_worker_succeeds_with_another() -> None:
    error = StorageRefused("this object may not be written")
    result = run(make_jobs(3), FakePool(1, fail_with(error, "s1")))
    assert result.failed["s1"].attempts == 1
    assert result.failed["s1"].error is error
    assert len(result.receipts) == 2


def test_a_lost_worker_costs_no_attempt_and_gets_jobs_only_when_ready_again() -> None:
    lost: list[int] = []

    def play(worker: int, job: Job) -> Event | None:
        clock.now += 10
        if worker == 0 and len(lost) < 3:
            lost.append(worker)
            return Lost(0, "node gone.")
        return succeed(worker, job)

    notes, clock = Notes(), Clock()
    result = run(make_jobs(20), FakePool(2, play, clock=clock), notes, max_attempts=1)
    assert len(result.receipts) == 20  # though one attempt is all that a job of its own has
    assert result.losses == 3
    assert {reason for _, reason in notes.retried} == {"node gone."}


def test_only_the_running_job_is_blamed_for_a_lost_worker() -> None:
    notes = Notes()
    result = run(make_jobs(8), FakePool(1, crash_with("s0")), notes)
    assert list(result.failed) == ["s0"]
    assert {shard for shard, _ in notes.retried} == {"s0"}
    assert len(result.receipts) == 7


def test_jobs_that_crash_every_worker_are_given_up_and_the_others_finish() -> None:
    poison = [f"s{n}" for n in range(0, 12, 2)]
    result = run(make_jobs(12), FakePool(2, crash_with(*poison)))
    assert sorted(result.failed) == sorted(poison)
    assert len(result.receipts) == 6
    error = result.failed["s0"].error
    assert isinstance(error, ClusterError)
    assert "was lost 4 times" in str(error)


def test_too_many_lost_workers_end_the_stage() -> None:
    def play(worker: int, job: Job) -> Event | None:
        return Lost(worker, f"node of {worker} gone.")

    with pytest.raises(
        ClusterError, match=r"recover: every worker was lost more than 5 times in a row .*node of"
    ):
        run(make_jobs(50), FakePool(2, play), max_losses_per_job=100)


def test_lost_workers_are_tolerated_while_jobs_finish() -> None:
    lost: set[str] = set()

    def play(worker: int, job: Job) -> Event | None:
        if job.shard in lost:
            return succeed(worker, job)
        lost.add(job.shard)
        return Lost(worker, "it was killed.")

    result = run(make_jobs(50), FakePool(2, play))  # 50 losses, five times the budget
    assert len(result.receipts) == result.losses == 50


def test_a_job_out_of_device_memory_is_retried_in_halves_on_a_new_worker() -> None:
    notes, splits = Notes(), []

    def play(worker: int, job: Job) -> Event | None:
        if job.shard == "s1":
            splits.append(job.split)
            if job.split == 1:
                return Raised(worker, job.key, OutOfMemoryError("s1: 2 GiB wanted"), "")
        return succeed(worker, job)

    pool = FakePool(1, play)
    result = run(make_jobs(4), pool, notes, max_attempts=1)
    assert len(result.receipts) == 4
    assert splits == [1, 2]
    assert pool.restarted == [0]
    assert notes.retried == [("s1", "OutOfMemoryError: s1: 2 GiB wanted")]
    assert result.losses == 0


def test_a_job_out_of_device_memory_in_halves_fails_with_the_setting_to_change() -> None:
    error = OutOfMemoryError("s1: 2 GiB wanted")
    result = run(make_jobs(4), FakePool(2, fail_with(error, "s1")))
    failure = result.failed["s1"]
    assert failure.attempts == 2
    assert isinstance(failure.error, OutOfMemoryError)
    assert "s1: 2 GiB wanted A second attempt" in str(failure.error)
    assert len(result.receipts) == 3


def test_an_infrastructure_error_of_a_gang_costs_no_attempt() -> None:
    tries: list[str] = []

    def play(worker: int, job: Job) -> Event | None:
        tries.append(job.shard)
        if len(tries) <= 2:
            return Raised(worker, job.key, ClusterError("rank 3 was lost"), "")
        return succeed(worker, job)

    result = run(make_jobs(1), FakePool(1, play), max_attempts=1)
    assert len(result.receipts) == 1
    assert result.losses == 2


def test_a_worker_that_fails_everything_is_built_anew() -> None:
    sick = {0}

    def play(worker: int, job: Job) -> Event | None:
        if worker in sick and worker not in pool.restarted:
            return Raised(worker, job.key, RuntimeError("CUDA error: illegal address"), "")
        return succeed(worker, job)

    pool = FakePool(2, play)
    result = run(make_jobs(40), pool)
    assert pool.restarted == [0]
    assert len(result.receipts) == 40


def test_without_a_ready_worker_the_stage_fails_and_names_the_resources() -> None:
    pool = FakePool(2, never_ready=(0, 1))
    with pytest.raises(ClusterError, match=r"not ready within 60 s \(2 CPUs free\)"):
        run(make_jobs(3), pool, ready_timeout_seconds=60)
    assert 60 <= pool.clock.now <= 62


def test_one_worker_that_never_starts_does_not_stop_the_others() -> None:
    clock = Clock()

    def play(worker: int, job: Job) -> Event | None:
        clock.now += 10
        return succeed(worker, job)

    pool = FakePool(2, play, clock=clock, never_ready=(1,))
    result = run(make_jobs(20), pool, ready_timeout_seconds=60)
    assert len(result.receipts) == 20
    assert set(pool.restarted) == {1}


def test_an_overdue_job_is_killed_and_counted_and_its_neighbour_is_not() -> None:
    hung: list[str] = []

    def play(worker: int, job: Job) -> Event | None:
        if job.shard == "s0" and len(hung) < 40:
            hung.append(job.shard)
            return None
        return succeed(worker, job)

    notes, pool = Notes(), FakePool(1, play)
    result = run(make_jobs(4), pool, notes, job_timeout_seconds=30)
    assert pool.restarted == [0]
    assert notes.retried == [("s0", "ClusterError: s0: ran for more than 30 s and was killed.")]
    assert len(result.receipts) == 4


def test_a_job_that_always_hangs_fails_and_queued_time_does_not_count() -> None:
    pool = FakePool(1, lambda worker, job: None if job.shard == "s0" else succeed(worker, job))
    result = run(make_jobs(3), pool, job_timeout_seconds=30)
    assert list(result.failed) == ["s0"]
    assert result.failed["s0"].attempts == 3
    assert pool.clock.now < 100  # three times thirty seconds, and the ticks between


@pytest.mark.parametrize("error", [ConfigError("another class list"), ImportError("no torch")])
def test_a_stage_ends_with_the_error_of_its_workers_if_none_can_be_built(error: Exception) -> None:
    kind = type(error) if isinstance(error, DistillError) else ClusterError
    with pytest.raises(kind, match=str(error)) as raised:
        run(make_jobs(3), FakePool(2, broken=[error] * 2))
    assert "trace" in str(raised.value.__cause__)


@pytest.mark.parametrize("error", [ConfigError("another class list"), ImportError("no torch")])
def test_a_worker_that_cannot_be_built_is_left_out_and_built_again_later(error: Exception) -> None:
    clock = Clock()

    def play(worker: int, job: Job) -> Event | None:
        clock.now += 1
        return succeed(worker, job)

    pool = FakePool(2, play, clock=clock, broken=[error])
    result = run(make_jobs(20), pool)
    assert len(result.receipts) == 20
    assert pool.restarted == [0]


def test_a_worker_that_could_not_reach_storage_is_built_again() -> None:
    pool = FakePool(1, broken=[StorageError("503"), StorageError("503")])
    result = run(make_jobs(3), pool)
    assert len(result.receipts) == 3
    assert pool.restarted == [0, 0]
    assert result.losses == 0


def test_only_new_progress_of_running_jobs_is_reported() -> None:
    notes, pool = Notes(), FakePool(1)

    def tell(on_progress: OnProgress) -> None:
        on_progress("k0", 1, 4)
        on_progress("k0", 1, 4)
        on_progress("unknown", 1, 4)

    pool.while_waiting = tell
    run(make_jobs(1), pool, notes)
    assert notes.progress == [("s0", 1, 4)]


@pytest.mark.parametrize("seed", range(25))
def test_under_random_faults_every_job_ends_exactly_once(seed: int) -> None:
    rng = random.Random(seed)

    def play(worker: int, job: Job) -> Event | None:
        draw = rng.random()
        if draw < 0.1:
            return Lost(worker, "chaos.")
        if draw < 0.3:
            return Raised(worker, job.key, DataError("chaos"), "")
        return None if draw < 0.35 else succeed(worker, job)

    pool = FakePool(4, play)
    result = run(make_jobs(60), pool, losses_per_worker=1000, job_timeout_seconds=20)
    assert sorted([*shards_of(result), *result.failed]) == sorted(f"s{n}" for n in range(60))
    assert not any(pool.lines)
