"""Whose fault: what the dispatcher does with workers that fail, jobs that fail, and late events."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from distill_core.errors import (
    ClusterError,
    ConfigError,
    DataError,
    DivergedError,
    MissingDataError,
    OutOfMemoryError,
    StorageError,
    StorageRefused,
)
from tasks.execution import RetryPolicy
from tasks.jobs import Job, Receipt
from tasks.pools.dispatch import dispatch
from tasks.pools.events import Done, Event, Lost, OnProgress, Raised, Ready
from tasks.pools.failures import DispatchResult
from tests.support.fake_pool import FakePool, Play, fail_with, succeed
from tests.support.fakes import make_jobs
from tests.support.notes import Notes

SECONDS = 10.0  # that a job takes


class NodePool(FakePool):
    """Each worker is on a node of its own, and every job takes a while."""

    def __init__(self, workers: int, play: Play = succeed, **settings: object) -> None:
        def timed(worker: int, job: Job) -> Event | None:
            self.tries.append((worker, job.shard))
            self.clock.now += SECONDS
            return play(worker, job)

        super().__init__(workers, timed, **settings)  # type: ignore[arg-type]
        self.tries: list[tuple[int, str]] = []

    def _build(self, worker: int) -> Event:
        event = super()._build(worker)
        return Ready(worker, f"node {worker}") if isinstance(event, Ready) else event

    def nodes_of(self, shard: str) -> list[int]:
        """Return the workers that tried a shard, in order."""
        return [worker for worker, tried in self.tries if tried == shard]


def run(
    jobs: Sequence[Job], pool: FakePool, notes: Notes | None = None, **policy: float
) -> DispatchResult:
    """Dispatch with the pool's own clock."""
    chosen = RetryPolicy(**policy)  # type: ignore[arg-type]
    return dispatch(jobs, pool, policy=chosen, stage="recover", observer=notes, clock=pool.clock)


def sick(error: Callable[[], Exception], *workers: int) -> Play:
    """Let every job fail on some workers."""

    def play(worker: int, job: Job) -> Event | None:
        if worker in workers:
            return Raised(worker, job.key, error(), "its traceback")
        return succeed(worker, job)

    return play


ERRORS = [
    lambda: StorageRefused("the credentials have expired"),
    lambda: MissingDataError("/data: no such folder"),
    lambda: OSError(28, "no space left on device"),
    lambda: StorageError("time-out"),
    lambda: DataError("not the image that was ingested"),
    lambda: DivergedError("loss is nan"),
    lambda: OutOfMemoryError("2 GiB wanted"),
    lambda: RuntimeError("CUDA error"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error()).__name__)
def test_one_sick_worker_of_eight_costs_no_shard(error: Callable[[], Exception]) -> None:
    pool = NodePool(8, sick(error, 0))
    result = run(make_jobs(219), pool)
    assert len(result.receipts) == 219
    assert result.failed == {}


def test_a_worker_set_aside_is_announced_once_and_tried_again_until_it_is_well() -> None:
    healed_at = 300.0

    def play(worker: int, job: Job) -> Event | None:
        if worker == 0 and pool.clock.now < healed_at:
            return Raised(worker, job.key, MissingDataError("/data: no such folder"), "")
        return succeed(worker, job)

    notes, pool = Notes(), NodePool(2, play)
    run(make_jobs(200), pool, notes)
    assert len([text for _, text in notes.notices if "worker 0 on node node 0" in text]) == 1
    assert 3 <= notes.retried.__len__() <= 10  # the delay doubles
    assert len([worker for worker, _ in pool.tries if worker == 0]) > 50


@pytest.mark.parametrize(
    ("error", "attempts"), [(DataError("truncated"), 3), (DivergedError("loss is nan"), 2)]
)
def test_a_job_that_is_at_fault_itself_is_given_up_after_failures_on_two_nodes(
    error: Exception, attempts: int
) -> None:
    pool = NodePool(4, fail_with(error, "s20"))
    result = run(make_jobs(40), pool)
    assert list(result.failed) == ["s20"]
    assert result.failed["s20"].attempts == attempts == len(pool.nodes_of("s20"))
    assert len(set(pool.nodes_of("s20"))) >= 2


def test_a_job_whose_own_file_is_missing_is_given_up_and_its_workers_go_on() -> None:
    error = MissingDataError("/data/a/7.png: no such file")
    pool = NodePool(4, fail_with(error, "s20"))
    result = run(make_jobs(60), pool)
    assert list(result.failed) == ["s20"]
    assert result.failed["s20"].error is error
    assert len(set(pool.nodes_of("s20"))) >= 2
    assert len(result.receipts) == 59


def test_bad_jobs_at_the_end_of_a_stage_get_no_more_attempts_than_needed() -> None:
    pool = NodePool(2, fail_with(DataError("truncated"), *(f"s{n}" for n in range(20, 26))))
    result = run(make_jobs(26), pool)
    assert len(result.failed) == 6
    assert max(len(pool.nodes_of(shard)) for shard in result.failed) <= 4


def test_a_fault_of_a_node_and_one_of_the_job_are_not_two_of_the_job() -> None:
    def play(worker: int, job: Job) -> Event | None:
        if worker == 0:
            return Raised(worker, job.key, StorageRefused("expired"), "")
        if job.shard == "s0" and worker == 1 and len(pool.nodes_of("s0")) <= 2:
            return Raised(worker, job.key, DivergedError("loss is nan"), "")
        return succeed(worker, job)

    pool = NodePool(3, play)
    assert run(make_jobs(30), pool).failed == {}


def test_a_stage_ends_at_once_if_every_worker_refuses_and_names_cause_and_nodes() -> None:
    pool = NodePool(8, sick(ERRORS[0], *range(8)))
    with pytest.raises(
        StorageRefused, match=r"^recover: no worker can go on \(on node 0, .* more"
    ) as raised:
        run(make_jobs(219), pool)
    assert "credentials have expired" in str(raised.value)
    assert not raised.value.retryable
    assert len(pool.tries) <= 2 * 8 + 8


def test_a_single_worker_with_wrong_credentials_ends_the_stage_after_two_jobs() -> None:
    pool = FakePool(1, sick(ERRORS[0], 0))
    with pytest.raises(StorageRefused, match="credentials have expired"):
        run(make_jobs(219), pool)
    assert len(pool.order) <= 4


def test_a_store_that_is_away_is_waited_for_and_no_attempt_is_counted() -> None:
    def play(worker: int, job: Job) -> Event | None:
        if 100 <= pool.clock.now < 400:
            return Raised(worker, job.key, StorageError("time-out"), "")
        return succeed(worker, job)

    notes, pool = Notes(), NodePool(4, play)
    result = run(make_jobs(100), pool, notes, max_attempts=1)
    assert len(result.receipts) == 100
    assert len([text for _, text in notes.notices if "Waiting" in text]) == 1


def test_a_store_that_stays_away_ends_the_stage_with_a_retryable_error() -> None:
    pool = FakePool(4, sick(lambda: StorageError("time-out"), *range(4)))
    with pytest.raises(StorageError, match=r"nothing succeeded for \d+ s\. .*time-out") as raised:
        run(make_jobs(100), pool, outage_seconds=600)
    assert raised.value.retryable
    assert 600 <= pool.clock.now < 700


def test_an_outage_of_one_job_alone_gives_up_that_job_and_its_failure_may_pass() -> None:
    error = StorageError("a/b.parquet: time-out")
    pool = NodePool(3, fail_with(error, "s1"))
    result = run(make_jobs(600), pool, outage_seconds=300)
    assert list(result.failed) == ["s1"]
    assert result.failed["s1"].retryable
    assert len(set(pool.nodes_of("s1"))) >= 2


class Batches(FakePool):
    """Reports several answers of one worker at once."""

    def __init__(self, batch: Callable[[Sequence[Job]], list[Event]], workers: int = 1) -> None:
        super().__init__(workers)
        self.batch = batch
        self.played = False

    def wait(self, seconds: float, on_progress: OnProgress) -> Sequence[Event]:
        if len(self.lines[0]) >= 2 and not self.played:
            self.played = True
            return self.batch(list(self.lines[0]))
        return super().wait(seconds, on_progress)


def test_a_job_that_was_done_beside_one_out_of_memory_is_done() -> None:
    def batch(jobs: Sequence[Job]) -> list[Event]:
        full = Raised(0, jobs[0].key, OutOfMemoryError("2 GiB wanted"), "")
        return [full, Done(0, Receipt(jobs[1].key, jobs[1].shard))]

    pool = Batches(batch)
    result = run(make_jobs(8), pool)
    assert sorted(receipt.shard for receipt in result.receipts) == [f"s{n}" for n in range(8)]
    assert len(pool.order) == 8 + 1  # only the first of the two is run again


@pytest.mark.parametrize("loss", [True, False])
def test_late_and_unknown_events_are_harmless(loss: bool) -> None:
    def batch(jobs: Sequence[Job]) -> list[Event]:
        first = Lost(0, "killed.") if loss else Raised(0, jobs[0].key, OSError("disk"), "")
        unknown: list[Event] = [Raised(0, "k99", ValueError("?"), ""), Done(0, Receipt("k99", "?"))]
        late = Raised(0, jobs[1].key, ValueError("late"), "")
        done = Done(0, Receipt(jobs[0].key, jobs[0].shard))
        if loss:
            pool.lines[0].clear()
            pool.coming.append(0)
        return [first, late, *unknown, done, done]

    pool = Batches(batch)
    result = run(make_jobs(8), pool)
    assert sorted(receipt.shard for receipt in result.receipts) == [f"s{n}" for n in range(8)]
    assert result.failed == {}


def test_a_job_that_advances_between_losses_is_never_given_up() -> None:
    reached = [0]

    def play(worker: int, job: Job) -> Event | None:
        if reached[0] < 50:
            reached[0] += 1
            return Lost(worker, "killed.")
        return succeed(worker, job)

    pool = NodePool(1, play)
    pool.while_waiting = lambda on_progress: on_progress("k0", reached[0] + 1, 60)
    result = run(make_jobs(1), pool)
    assert len(result.receipts) == 1
    assert result.losses == 50


def test_a_job_that_always_dies_at_the_same_place_is_given_up_in_spite_of_its_progress() -> None:
    pool = NodePool(2, lambda worker, job: Lost(worker, "killed."))
    pool.while_waiting = lambda on_progress: on_progress("k0", 7, 60)
    assert list(run(make_jobs(1), pool).failed) == ["s0"]
    assert len(pool.nodes_of("s0")) <= 5


def test_a_reclaimed_node_does_not_count_against_its_job() -> None:
    def play(worker: int, job: Job) -> Event | None:
        if len(pool.nodes_of("s0")) <= 12:
            return Lost(worker, "reclaimed.", node_lost=True)
        return succeed(worker, job)

    pool = NodePool(2, play)
    result = run(make_jobs(1), pool)
    assert len(result.receipts) == 1


def test_without_any_worker_for_too_long_the_stage_ends_retryable() -> None:
    def play(worker: int, job: Job) -> Event | None:
        if pool.clock.now > 50:
            pool.never_ready = {0, 1}
            return Lost(worker, "reclaimed.", node_lost=True)
        return succeed(worker, job)

    pool = NodePool(2, play)
    with pytest.raises(
        ClusterError, match=r"there was no worker for 900 s \(2 CPUs free\)"
    ) as raised:
        run(make_jobs(40), pool, wait_for_workers_seconds=900)
    assert raised.value.retryable


def test_one_worker_goes_on_though_the_others_never_come() -> None:
    pool = NodePool(8, never_ready=range(1, 8))
    result = run(make_jobs(500), pool)  # 5,000 s, longer than any patience
    assert len(result.receipts) == 500
    assert result.losses == 0


def test_a_config_error_on_one_node_only_is_a_fault_of_the_node() -> None:
    pool = NodePool(3, sick(lambda: ConfigError("s3 needs pip install distill[s3]"), 2))
    assert run(make_jobs(60), pool).failed == {}


def test_a_job_without_checkpoints_that_dies_a_little_later_each_time_is_given_up() -> None:
    """Its attempts start anew, so that the last progress that is seen depends on chance."""
    attempts = [0]

    def play(worker: int, job: Job) -> Event | None:
        attempts[0] += 1
        return Lost(worker, "killed.") if attempts[0] <= 40 else succeed(worker, job)

    def tell(on_progress: OnProgress) -> None:
        for done in (1 + attempts[0] % 2, 500 + attempts[0]):
            on_progress("k0", done, 1000)

    pool = NodePool(2, play)
    pool.while_waiting = tell
    assert list(run(make_jobs(1), pool).failed) == ["s0"]
    assert len(pool.nodes_of("s0")) <= 6
