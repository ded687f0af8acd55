"""A scripted pool for tests of the dispatcher: a test decides what becomes of each job."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from tasks.jobs import Job, Receipt
from tasks.pools.events import Broken, Done, Event, Lost, OnProgress, Raised, Ready

Play = Callable[[int, Job], Event | None]  # what becomes of a job; None: it hangs


def succeed(worker: int, job: Job) -> Event | None:
    """Let every job succeed."""
    return Done(worker, Receipt(job.key, job.shard))


def fail_with(error: Exception, *shards: str) -> Play:
    """Let some jobs raise, every time."""

    def play(worker: int, job: Job) -> Event | None:
        if job.shard in shards:
            return Raised(worker, job.key, error, "its traceback")
        return succeed(worker, job)

    return play


def crash_with(*shards: str) -> Play:
    """Let some jobs take their worker down, every time."""

    def play(worker: int, job: Job) -> Event | None:
        return Lost(worker, "it was killed.") if job.shard in shards else succeed(worker, job)

    return play


class Clock:
    """A clock that is set by the test."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class FakePool:
    """Every `wait` ends the first job of each worker, one worker per call, in turn."""

    def __init__(
        self,
        workers: int,
        play: Play = succeed,
        *,
        clock: Clock | None = None,
        never_ready: Sequence[int] = (),
        broken: Sequence[Exception] = (),
    ) -> None:
        self.workers, self.play = workers, play
        self.clock = clock or Clock()
        self.never_ready, self.broken = set(never_ready), deque(broken)
        self.lines: list[deque[Job]] = [deque() for _ in range(workers)]
        self.order: list[str] = []  # shards as they were submitted
        self.deepest = 0
        self.restarted: list[int] = []
        self.coming = deque(range(workers))  # workers that will be ready
        self.turn = 0
        self.while_waiting: Callable[[OnProgress], None] = lambda on_progress: None

    @property
    def present(self) -> int:
        """Return the number of workers."""
        return self.workers

    def submit(self, worker: int, job: Job) -> None:
        assert worker not in self.coming, "fed before it was ready"
        self.lines[worker].append(job)
        self.order.append(job.shard)
        self.deepest = max(self.deepest, len(self.lines[worker]))

    def wait(self, seconds: float, on_progress: OnProgress) -> Sequence[Event]:
        self.while_waiting(on_progress)
        if ready := [worker for worker in self.coming if worker not in self.never_ready]:
            self.coming.remove(ready[0])
            return [self._build(ready[0])]
        for _ in range(self.workers):
            self.turn = (self.turn + 1) % self.workers
            if self.lines[self.turn] and (event := self._end(self.turn)):
                return [event]
        self.clock.now += seconds
        return []

    def _build(self, worker: int) -> Event:
        return Broken(worker, self.broken.popleft(), "trace") if self.broken else Ready(worker)

    def _end(self, worker: int) -> Event | None:
        event = self.play(worker, self.lines[worker][0])
        if isinstance(event, Lost):
            self.lines[worker].clear()
            self.coming.append(worker)
        elif event is not None:
            self.lines[worker].popleft()
        return event

    def restart(self, worker: int) -> None:
        self.restarted.append(worker)
        self.lines[worker].clear()
        if worker not in self.coming:
            self.coming.append(worker)

    def describe(self) -> str:
        return "2 CPUs free"

    def close(self) -> None:
        """Do nothing."""
