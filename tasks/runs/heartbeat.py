"""The heartbeat of a driver: what it is doing, written every few seconds by a thread of its own."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

from distill_core.errors import DistillError
from distill_core.storage.shard_store import utc_now
from tasks.execution import Execution
from tasks.jobs import Receipt
from tasks.run import Run
from tasks.runs.drivers import DriverRecord, RunningShard, driver_path, text_of
from tasks.stages.names import StageId
from tasks.stages.table import row_of

BEAT_SECONDS = 10.0
GATHER_SECONDS = 1.0  # after a stage or its first shard began: more are about to
STOP_SECONDS = 10.0  # that the last word may take; the work is over then
Clock = Callable[[], datetime]  # in UTC


@dataclass
class _Tally:
    """What changes while a driver works."""

    stage: str | None = None
    stage_started: str | None = None
    since: dict[str, datetime] = field(default_factory=dict)  # running shards, by name
    begun: bool = False  # some shard of this stage was
    done: int = 0
    gpus: dict[str, float] = field(default_factory=dict)  # of one worker, by stage
    seconds: dict[str, float] = field(default_factory=dict)  # of workers on ended shards, by stage


class Heartbeat:
    """Writes this driver's file for the length of a `with` block; it observes the stages.

    A thread of its own writes, so that a slow store keeps nobody waiting and a worker inside this
    very process does not silence the driver.

    Args:
        run: whose driver this is.
        execution: where and how it runs jobs.
        workers: tells how many workers there are now.
        clock: tells the time.
        seconds: between two beats.
    """

    def __init__(
        self,
        run: Run,
        execution: Execution,
        *,
        workers: Callable[[], int] = lambda: 0,
        clock: Clock = utc_now,
        seconds: float = BEAT_SECONDS,
    ) -> None:
        self._run, self._execution, self._workers = run, execution, workers
        self._clock, self._seconds = clock, seconds
        now = text_of(clock())
        self._base = DriverRecord(
            id=secrets.token_hex(4),
            host=socket.gethostname(),
            pid=os.getpid(),
            device=execution.device,
            started=now,
            updated=now,
        )
        self._tally, self._lock = _Tally(), threading.Lock()
        self._news, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    @property
    def id(self) -> str:
        """Return the name of this driver."""
        return self._base.id

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            for shard in list(self._tally.since):
                self._end(shard)
            ending: Literal["finished", "stopped"] = "finished" if kind is None else "stopped"
            reason = "" if kind is None else kind.__name__
            self._base = replace(self._base, state=ending, reason=reason)
        self._closing.set()
        self._news.set()
        self._thread.join(STOP_SECONDS)

    def stage_started(self, stage: str, total: int, done: int) -> None:
        """Say which stage this driver is at."""
        with self._lock:
            self._tally.stage, self._tally.stage_started = stage, text_of(self._clock())
            self._tally.begun = False
            row = row_of(StageId.parse(stage))
            gpus = self._execution.gpus * row.processes(self._run.config)
            self._tally.gpus[stage] = 0.0 if row.jobs is None else gpus
        self._news.set()

    def job_started(self, stage: str, shard: str) -> None:
        """Note what a worker begins."""
        with self._lock:
            self._end(shard)
            self._tally.since[shard] = self._clock()
            first, self._tally.begun = not self._tally.begun, True
        if first:
            self._news.set()

    def job_progress(self, stage: str, shard: str, done: int, total: int) -> None:
        """Ignore: shards count whole here."""

    def job_finished(self, stage: str, receipt: Receipt) -> None:
        """Count a shard, unless another driver has committed it before."""
        with self._lock:
            self._end(receipt.shard)
            self._tally.done += int(receipt.won)

    def job_retried(self, stage: str, shard: str, reason: str) -> None:
        """Note that nobody works on a shard for now."""
        with self._lock:
            self._end(shard)

    def job_failed(self, stage: str, shard: str, error: str) -> None:
        """Note that a shard was given up."""
        with self._lock:
            self._end(shard)

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Forget the shards of a stage that is over."""
        with self._lock:
            for shard in list(self._tally.since):
                self._end(shard)

    def record(self) -> DriverRecord:
        """Return what this driver does now."""
        with self._lock:
            now, tally, stage = self._clock(), self._tally, self._tally.stage or ""
            at_work = sum((now - since).total_seconds() for since in tally.since.values())
            spent = dict(tally.seconds)
            if tally.since:
                spent[stage] = spent.get(stage, 0.0) + at_work
            return replace(
                self._base,
                updated=text_of(now),
                stage=tally.stage,
                stage_started=tally.stage_started,
                running=tuple(
                    RunningShard(stage, shard, text_of(since))
                    for shard, since in tally.since.items()
                ),
                done=tally.done,
                workers=self._workers(),
                gpus_per_worker=tally.gpus.get(stage, 0.0),
                worker_seconds={name: round(each, 1) for name, each in spent.items()},
                gpu_seconds={
                    name: round(each * tally.gpus.get(name, 0.0), 1) for name, each in spent.items()
                },
            )

    def write(self) -> None:
        """Write the file now; a store that refuses stops nobody's work."""
        with suppress(DistillError):
            self._run.store.put(driver_path(self._run, self.id), self.record().to_json())

    def _beat(self) -> None:
        self.write()
        while not self._closing.is_set():
            if self._news.wait(self._seconds):
                self._closing.wait(GATHER_SECONDS)
                self._news.clear()
            self.write()
        self.write()  # the one before may have begun too early for the last word

    def _end(self, shard: str) -> None:
        """Bank the time of a shard that no worker has any more."""
        since = self._tally.since.pop(shard, None)
        if since is not None:
            stage, seconds = self._tally.stage or "", (self._clock() - since).total_seconds()
            self._tally.seconds[stage] = self._tally.seconds.get(stage, 0.0) + seconds
