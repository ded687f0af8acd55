"""The heartbeat of a driver: a thread that writes the driver's record every few seconds."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, Self

from distill_core.storage.requests import requests_of_process
from distill_core.storage.shard_store import utc_now
from tasks.execution import Execution
from tasks.jobs import Receipt
from tasks.run import Run
from tasks.runs.drivers import DriverRecord, RunningShard, driver_path, format_time, process_space
from tasks.stages.names import StageId
from tasks.stages.table import row_of

BEAT_SECONDS = 10.0
DEBOUNCE_SECONDS = 1.0  # after a stage or its first shard began: others usually follow at once
STOP_SECONDS = 10.0  # that the last write may take
Clock = Callable[[], datetime]  # in UTC


@dataclass
class _Activity:
    """The changing part of a driver's record."""

    stage: str | None = None
    stage_started: str | None = None
    since: dict[str, datetime] = field(default_factory=dict)  # start of each running shard, by name
    total: int | None = None  # shards of this stage
    stage_done: int = 0
    done_before: int = 0
    has_begun: bool = False  # a shard of this stage
    done: int = 0
    gpus: float = 0.0  # of each process of the stage
    processes: int = 1  # that are to share a job of it
    gpu_seconds: dict[str, float] = field(default_factory=dict)  # up to `counted`, by stage
    counted: datetime | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # spent on ended attempts, by stage
    present: dict[str, float] = field(default_factory=dict)  # seconds of workers, by stage
    present_until: datetime | None = None  # up to which they are counted; None: between stages
    requests: dict[str, Counter[str]] = field(default_factory=dict)  # to buckets, by stage
    traffic: dict[str, Counter[str]] = field(default_factory=dict)  # their bytes, by stage

    def count_gpus(self, now: datetime, processes: int | None) -> None:
        """Add the GPU time since the last call, with as many processes as there are now.

        Args:
            now: the time.
            processes: that share a job; None: as many as are to.
        """
        before, self.counted = self.counted or now, now
        stage, count = self.stage or "", self.processes if processes is None else processes
        seconds = len(self.since) * (now - before).total_seconds()
        total = self.gpu_seconds.get(stage, 0.0) + seconds * self.gpus * count
        self.gpu_seconds[stage] = total

    def count_present(self, workers: int, now: datetime) -> None:
        """Add the time since the last count for the workers that are there."""
        if self.present_until is not None and self.stage is not None:
            seconds = workers * (now - self.present_until).total_seconds()
            self.present[self.stage] = self.present.get(self.stage, 0.0) + seconds
            self.present_until = now

    def add_requests(
        self, stage: str, requests: Mapping[str, int], traffic: Mapping[str, int]
    ) -> None:
        """Add requests of a stage, by kind, and their bytes."""
        self.requests.setdefault(stage, Counter()).update(requests)
        self.traffic.setdefault(stage, Counter()).update(traffic)


class Heartbeat:
    """Writes this driver's record during a `with` block; an `Observer` of the stages.

    A thread of its own writes, so that a slow store delays no work and a worker in this process
    does not stop the heartbeat.

    Args:
        run: the run that is driven.
        execution: settings of this pass over the run.
        workers: returns the current number of workers.
        processes: returns how many processes share a job now; None: as many as the config has.
        publish: receives each record as it is written, for whoever watches the numbers.
        clock: returns the time.
        seconds: interval between two writes.
    """

    def __init__(
        self,
        run: Run,
        execution: Execution,
        *,
        workers: Callable[[], int] = lambda: 0,
        processes: Callable[[], int | None] = lambda: None,
        publish: Callable[[DriverRecord], None] = lambda record: None,
        clock: Clock = utc_now,
        seconds: float = BEAT_SECONDS,
    ) -> None:
        self._run, self._execution, self._workers = run, execution, workers
        self._processes, self._publish = processes, publish
        self._clock, self._seconds = clock, seconds
        now = format_time(clock())
        self._base = DriverRecord(
            id=secrets.token_hex(4),
            host=socket.gethostname(),
            pid=os.getpid(),
            device=execution.device,
            started=now,
            updated=now,
            processes=process_space(),
        )
        self._activity, self._lock = _Activity(), threading.Lock()
        self._changed, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, name="heartbeat", daemon=True)

    @property
    def id(self) -> str:
        """Return the name of this driver."""
        return self._base.id

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._lock:
            for shard in list(self._activity.since):
                self._stop_clock(shard)
            ending: Literal["finished", "stopped"] = "finished" if kind is None else "stopped"
            reason = "" if kind is None else kind.__name__
            self._base = replace(self._base, state=ending, reason=reason)
        self._stopping.set()
        self._changed.set()
        self._thread.join(STOP_SECONDS)

    def stage_started(self, stage: str, total: int, done: int) -> None:
        """Record the current stage."""
        with self._lock:
            now = self._clock()
            self._count_gpus()
            self._activity.stage, self._activity.stage_started = stage, format_time(now)
            self._activity.present_until = now
            self._activity.has_begun = False
            self._activity.total, self._activity.stage_done = total, done
            self._activity.done_before = done
            row = row_of(StageId.parse(stage))
            self._activity.gpus = 0.0 if row.cpu_only else self._execution.gpus
            self._activity.processes = row.processes(self._run.config)
        self._changed.set()

    def stage_notice(self, stage: str, text: str) -> None:
        """Do nothing: it is an event, not a state."""

    def job_started(self, stage: str, shard: str) -> None:
        """Record that a worker runs a shard."""
        with self._lock:
            self._stop_clock(shard)
            self._count_gpus()
            self._activity.since[shard] = self._clock()
            first, self._activity.has_begun = not self._activity.has_begun, True
        if first or row_of(StageId.parse(stage)).trains:  # other drivers leave it to this one
            self._changed.set()

    def job_progress(self, stage: str, shard: str, done: int, total: int) -> None:
        """Do nothing: only whole shards are counted."""

    def job_finished(self, stage: str, receipt: Receipt) -> None:
        """Count a shard, unless another driver committed it first."""
        with self._lock:
            self._stop_clock(receipt.shard)
            self._activity.add_requests(stage, receipt.requests, receipt.traffic)
            self._activity.done += int(receipt.won)
            self._activity.stage_done += 1

    def job_retried(self, stage: str, shard: str, reason: str) -> None:
        """Record that a shard no longer runs."""
        with self._lock:
            self._stop_clock(shard)

    def job_failed(self, stage: str, shard: str, error: str) -> None:
        """Record that a shard no longer runs."""
        with self._lock:
            self._stop_clock(shard)

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Record that no shard of the stage runs."""
        with self._lock:
            self._activity.count_present(self._workers(), self._clock())
            self._activity.present_until = None
            counted = requests_of_process.taken(), requests_of_process.taken_bytes()
            self._activity.add_requests(stage, *counted)
            for shard in list(self._activity.since):
                self._stop_clock(shard)

    def record(self) -> DriverRecord:
        """Return the current record."""
        with self._lock:
            now, activity = self._clock(), self._activity
            spent, count = self._seconds_by_stage(now), self._count_gpus()
            activity.count_present(self._workers(), now)
            return replace(
                self._base,
                updated=format_time(now),
                stage=activity.stage,
                stage_started=activity.stage_started,
                stage_total=activity.total,
                stage_done=activity.stage_done,
                stage_done_before=activity.done_before,
                running=tuple(
                    RunningShard(activity.stage or "", shard, format_time(since))
                    for shard, since in activity.since.items()
                ),
                done=activity.done,
                workers=self._workers(),
                gpus_per_worker=activity.gpus * count,
                worker_seconds={name: round(value, 1) for name, value in spent.items()},
                gpu_seconds={name: round(activity.gpu_seconds.get(name, 0.0), 1) for name in spent},
                present_seconds={n: round(value, 1) for n, value in activity.present.items()},
                requests={n: dict(c) for n, c in activity.requests.items() if c},
                traffic={n: dict(c) for n, c in activity.traffic.items() if c},
            )

    def write(self) -> None:
        """Write the record now; a store that refuses does not stop the run."""
        record = self.record()
        with suppress(Exception):  # numbers for people, which may be away
            self._publish(record)
        with suppress(Exception):  # whatever it is, the next one may succeed
            self._run.store.put(driver_path(self._run, self.id), record.to_json())

    def _keep_writing(self) -> None:
        self.write()
        while not self._stopping.is_set():
            if self._changed.wait(self._seconds):
                self._stopping.wait(DEBOUNCE_SECONDS)
                self._changed.clear()
            self.write()
        self.write()  # the previous write may have begun before the last change

    def _seconds_by_stage(self, now: datetime) -> dict[str, float]:
        """Return the time spent on shards by stage, including running attempts."""
        spent, running = dict(self._activity.seconds), self._activity.since.values()
        if running:
            stage = self._activity.stage or ""
            seconds = sum((now - since).total_seconds() for since in running)
            spent[stage] = spent.get(stage, 0.0) + seconds
        return spent

    def _count_gpus(self) -> int:
        """Add the GPU time up to now; return how many processes share a job."""
        processes = self._processes()
        self._activity.count_gpus(self._clock(), processes)
        return self._activity.processes if processes is None else processes

    def _stop_clock(self, shard: str) -> None:
        """Add the time of a shard that no longer runs to its stage."""
        self._count_gpus()
        since = self._activity.since.pop(shard, None)
        if since is not None:
            stage, seconds = self._activity.stage or "", (self._clock() - since).total_seconds()
            self._activity.seconds[stage] = self._activity.seconds.get(stage, 0.0) + seconds
