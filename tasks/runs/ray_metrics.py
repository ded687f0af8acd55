"""Metrics of a driver for Prometheus, through the agent of Ray on the driver's node.

`METRICS` lists them. Ray adds ``ray_`` to each name, and labels of its own. Where no Ray is
connected, as with `--local`, nothing happens; totals are published once there is one.

Importing this module does not import Ray.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal

from tasks.jobs import Receipt
from tasks.runs.drivers import DriverRecord

ERROR = re.compile(r"([A-Za-z_]\w*)(?:: |$)")  # at the begin of a reason
Values = Mapping[tuple[str, str, str], float]  # by name, stage and kind


@dataclass(frozen=True)
class Metric:
    """One metric; all have the labels ``run`` and ``stage``."""

    type: Literal["gauge", "counter"]
    description: str
    by_kind: bool = False  # has the label ``kind`` as well


METRICS: Mapping[str, Metric] = {
    "distill_shards_planned": Metric("gauge", "Shards of the stage."),
    "distill_shards_done": Metric("gauge", "Complete shards of the stage, as this driver knows."),
    "distill_shards_left": Metric("gauge", "Shards that the current stage lacks."),
    "distill_workers": Metric("gauge", "Workers of the stage that are present."),
    "distill_workers_busy": Metric("gauge", "Workers that run a shard."),
    "distill_shards_finished": Metric("counter", "Shards that ended well during this pass."),
    "distill_shard_retries": Metric("counter", "Attempts that are repeated, by error.", True),
    "distill_shard_failures": Metric("counter", "Shards that were given up, by error.", True),
    "distill_worker_seconds": Metric("counter", "Time that workers spent on shards."),
    "distill_gpu_seconds": Metric("counter", "The same times the GPUs of a worker."),
    "distill_storage_requests": Metric("counter", "Requests to buckets, by kind.", True),
    "distill_storage_bytes": Metric("counter", "Bytes of these requests, read or written.", True),
}
LIVE = (
    "distill_shards_left",
    "distill_workers",
    "distill_workers_busy",
)  # of the current stage alone


class RayMetrics:
    """Publishes the records of a driver; an `Observer` that counts retries and failures.

    Args:
        run: name of the run, a label.
        metrics: returns Ray's module of metrics, or None where Ray is not connected.
    """

    def __init__(self, run: str, metrics: Callable[[], Any] | None = None) -> None:
        self._run, self._metrics = run, metrics or connected_metrics
        self._made = dict[str, Any]()
        self._counted, self._lock = Counter[tuple[str, str, str]](), Lock()
        self._published: dict[tuple[str, str, str], float] = {}

    def publish(self, record: DriverRecord) -> None:
        """Publish the numbers of a record, and the retries and failures so far."""
        with self._lock:
            if (metrics := self._metrics()) is None:
                return
            values = dict(values_of(record)) | self._counted
            ended = [each for each in self._published if each[0] in LIVE and each not in values]
            for (name, stage, kind), value in (values | dict.fromkeys(ended, 0.0)).items():
                self._send(metrics, (name, stage, kind), value)

    def _send(self, metrics: Any, key: tuple[str, str, str], value: float) -> None:
        name, stage, kind = key
        metric, labels = METRICS[name], {"run": self._run, "stage": stage}
        if metric.by_kind:
            labels["kind"] = kind
        if name not in self._made:
            make = metrics.Gauge if metric.type == "gauge" else metrics.Counter
            self._made[name] = make(name, description=metric.description, tag_keys=tuple(labels))
        if metric.type == "gauge":
            self._made[name].set(value, tags=labels)
        elif (more := value - self._published.get(key, 0.0)) > 0:
            self._made[name].inc(more, tags=labels)
        self._published[key] = value

    def _count(self, name: str, stage: str, kind: str = "") -> None:
        with self._lock:
            self._counted[(name, stage, kind)] += 1

    def job_finished(self, stage: str, receipt: Receipt) -> None:
        """Count a shard."""
        self._count("distill_shards_finished", stage)

    def job_retried(self, stage: str, shard: str, reason: str) -> None:
        """Count a repeated attempt by the type of its error."""
        self._count("distill_shard_retries", stage, kind_of(reason))

    def job_failed(self, stage: str, shard: str, error: str) -> None:
        """Count a shard that was given up by the type of its error."""
        self._count("distill_shard_failures", stage, kind_of(error))

    def stage_started(self, stage: str, total: int, done: int) -> None:
        """Do nothing: the record of the driver has it."""

    def stage_notice(self, stage: str, text: str) -> None:
        """Do nothing: it is no number."""

    def job_started(self, stage: str, shard: str) -> None:
        """Do nothing: the record of the driver has it."""

    def job_progress(self, stage: str, shard: str, done: int, total: int) -> None:
        """Do nothing: only whole shards are counted."""

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Do nothing: the record of the driver has it."""


def values_of(record: DriverRecord) -> Iterator[tuple[tuple[str, str, str], float]]:
    """Yield the numbers of a record by name, stage and kind."""
    if (stage := record.stage) is not None:
        if record.stage_total is not None:
            yield ("distill_shards_planned", stage, ""), record.stage_total
        yield ("distill_shards_done", stage, ""), record.stage_done
        if record.state == "running":
            left = 0 if record.stage_total is None else record.stage_total - record.stage_done
            yield ("distill_shards_left", stage, ""), left
            yield ("distill_workers", stage, ""), record.workers
            yield ("distill_workers_busy", stage, ""), len(record.running)
    for name, by_stage in (
        ("distill_worker_seconds", record.worker_seconds),
        ("distill_gpu_seconds", record.gpu_seconds),
    ):
        yield from (((name, each, ""), seconds) for each, seconds in by_stage.items())
    for name, kinds in (
        ("distill_storage_requests", record.requests),
        ("distill_storage_bytes", record.traffic),
    ):
        for each, counts in kinds.items():
            yield from (((name, each, kind), number) for kind, number in counts.items())


def exported(name: str) -> str:
    """Return the name under which Prometheus finds a metric."""
    return f"ray_{name}" + ("_total" if METRICS[name].type == "counter" else "")


def kind_of(reason: str) -> str:
    """Return the type of the error that a reason begins with; ``other`` if it has none."""
    found = ERROR.match(reason)
    return found[1] if found else "other"


def connected_metrics() -> Any:
    """Return Ray's module of metrics, or None where this process is not connected to Ray."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    from ray.util import metrics

    return metrics
