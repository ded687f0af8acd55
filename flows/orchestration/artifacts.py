"""Artifacts of a flow run in Prefect: progress by stage, a log line per shard, accuracies."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.progress.background import background
from flows.progress.meter import Meter, describe, unit_of
from flows.reports.published import Published

if TYPE_CHECKING:
    from tasks.jobs import Receipt

UPDATE_SECONDS = 1.0  # the driver alone writes progress, at most this often
PAUSE_SECONDS = 60.0  # after a failed update, because Prefect's client repeats it for a minute


def at_once(function: Callable[..., object], *arguments: Any) -> None:
    """Make a call."""
    function(*arguments)


class StageArtifacts:
    """Shows the progress of a stage in Prefect, and logs one line per shard.

    Args:
        run: name of the run.
        clock: seconds, monotonic.
        call: makes the calls to Prefect's API, in order, here or in another thread.
    """

    def __init__(
        self,
        run: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        call: Callable[..., None] = at_once,
    ) -> None:
        self._run, self._clock, self._call = run, clock, call
        self._meter = Meter(0, 0, clock=clock)
        self._artifact: UUID | None = None
        self._last = 0.0
        self._paused_until = -math.inf
        self._latest: tuple[float, str] | None = None  # percent and text that wait to be sent
        self._lock = threading.Lock()

    def stage_started(self, stage: str, total: int, done: int) -> None:
        """Create the stage's progress artifact."""
        self._meter, self._last = Meter(total, done, clock=self._clock), self._clock()
        self._call(self._create, stage, 100 * self._meter.fraction)

    def stage_notice(self, stage: str, text: str) -> None:
        """Log it."""
        get_run_logger().warning("%s: %s", stage, text)

    def job_started(self, stage: str, shard: str) -> None:
        """Do nothing: one line per shard is enough."""

    def job_progress(self, stage: str, shard: str, done: int, total: int) -> None:
        """Record progress."""
        self._meter.advance(shard, done, total)
        if self._clock() - self._last >= UPDATE_SECONDS:
            self._update(stage)

    def job_finished(self, stage: str, receipt: Receipt) -> None:
        """Record and log a finished shard."""
        self._meter.finish(receipt.shard)
        get_run_logger().info(
            "%s: %s: %d rows in %.1f s",
            stage,
            receipt.shard,
            receipt.rows,
            receipt.seconds,
        )
        if self._clock() - self._last >= UPDATE_SECONDS:
            self._update(stage)

    def job_retried(self, stage: str, shard: str, reason: str) -> None:
        """Log a new attempt."""
        self._meter.restart(shard)
        get_run_logger().warning("%s: %s: trying again: %s", stage, shard, reason)

    def job_failed(self, stage: str, shard: str, error: str) -> None:
        """Log a shard that used up its attempts."""
        self._meter.restart(shard)
        get_run_logger().error("%s: %s: failed: %s", stage, shard, error)

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Show the final state."""
        self._update(stage)

    def _update(self, stage: str) -> None:
        self._last = self._clock()
        text = f"{stage}: {describe(self._meter, unit_of(stage))}"
        with self._lock:
            waiting, self._latest = self._latest, (100 * self._meter.fraction, text)
        if waiting is None:
            self._call(self._send)

    def _create(self, stage: str, percent: float) -> None:
        self._artifact = None
        with _Advisory():
            artifact = create_progress_artifact(
                percent,
                key=artifact_key(self._run, stage),
                description=f"{stage} of {self._run}",
            )
            self._artifact = cast("UUID", artifact)  # a coroutine only inside an event loop

    def _send(self) -> None:
        with self._lock:
            latest, self._latest = self._latest, None
        if latest is None or self._artifact is None or self._clock() < self._paused_until:
            return
        with _Advisory() as advice:
            update_progress_artifact(self._artifact, *latest)
        if advice.lost:
            self._paused_until = self._clock() + PAUSE_SECONDS


class _Advisory:
    """Logs errors of a block that only informs, so that a slow API does not stop the run."""

    lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> bool:
        self.lost = kind is not None and issubclass(kind, Exception)
        if self.lost:
            get_run_logger().warning("an artifact could not be written: %s", error)
        return self.lost


def artifact_key(*names: str) -> str:
    """Return a key of lowercase letters, digits and dashes, as Prefect requires."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(names).lower()).strip("-")


def publish(contents: Published) -> None:
    """Create artifacts of a run's accuracy table and of the head of its report."""
    name, key = contents.name, artifact_key(contents.name, "accuracy")

    def create() -> None:
        create_table_artifact(contents.rows, key=key, description=contents.note)
        create_markdown_artifact(contents.text, key=artifact_key(name, "report"), description=name)

    with background("artifacts", warn=get_run_logger().warning) as calls:
        calls.call(create)
