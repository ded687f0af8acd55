"""The Prefect flow: when and in which order. One task per stage, never one per class.

Prefect's results and caches are off: the manifests say what is done, so a flow run that is repeated
does only what is missing. Losing Prefect's database loses history, never data.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE

from distill_core.config.schema import RunConfig
from distill_core.storage.store import Store
from flows import facts, pipeline, tables
from flows.meter import UNITS, Meter, describe
from flows.pipeline import Work

if TYPE_CHECKING:
    from tasks.jobs import Receipt

UPDATE_SECONDS = 1.0  # the driver alone writes progress, at most this often


def worth_retrying(task: object, task_run: object, state: Any) -> bool:
    """Return whether a stage's error says that trying again may help."""
    return bool(getattr(state.data, "retryable", False))


ONCE_MORE: dict[str, Any] = {
    "persist_result": False,
    "cache_policy": NO_CACHE,
    "retries": 1,
    "retry_delay_seconds": 10,
    "retry_condition_fn": worth_retrying,
}


@task(**ONCE_MORE)
def ingest(work: Work) -> None:
    """Read, check and index the real images."""
    work.do("ingest")


@task(**ONCE_MORE)
def squeeze(work: Work) -> None:
    """Train the teacher, or import it."""
    work.do("squeeze")


@task(**ONCE_MORE)
def statistics(work: Work) -> None:
    """Measure what each class of real images does to the teacher, if a term asks."""
    work.do("statistics")


@task(**ONCE_MORE)
def recover(work: Work) -> None:
    """Make the images under the teacher."""
    work.do("recover")


@task(**ONCE_MORE)
def relabel(work: Work) -> None:
    """Let the teacher describe views of the images."""
    work.do("relabel")


@task(**ONCE_MORE)
def posttrain(work: Work) -> None:
    """Train and judge students."""
    work.do("posttrain")


@task(**ONCE_MORE)
def report(work: Work) -> None:
    """Write the report, and show the accuracy table among the artifacts."""
    work.report()
    if not work.stopped:
        _publish(facts.gather(work.run))


# The serializer is for the one thing Prefect stores regardless: the error of a failed flow.
@flow(flow_run_name="{run}", persist_result=False, result_serializer="json")
def distill(
    config: RunConfig,
    store: str,
    run: str | None = None,
    execution: dict[str, Any] | None = None,
    only: dict[str, list[str]] | None = None,
) -> None:
    """Distil a dataset.

    Args:
        config: the resolved tree of a preset, as `distill show PRESET` prints it.
        store: folder or URL; credentials come from the environment, never from here.
        run: name of the run; by default the preset and the config's fingerprint.
        execution: where and how jobs run, see `tasks.execution.Execution`.
        only: shards to run by stage; a stage that is not named runs whole.
    """
    where = pipeline.execution_of({**(execution or {}), "store": store})
    made = pipeline.prepare(config, Store(store), name=run, single_writer=where.single_writer)
    with pipeline.opened(made, where, only or {}, observers=[StageArtifacts(made.name)]) as work:
        ingest(work)
        squeeze(work)
        statistics(work)
        recover(work)
        relabel(work)
        posttrain(work)
        report(work)


class StageArtifacts:
    """Shows a stage's progress in Prefect, and logs one line per shard."""

    def __init__(self, run: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._clock = run, clock
        self._meter = Meter(0, 0, clock=clock)
        self._artifact: UUID | None = None
        self._last = 0.0

    def stage_started(self, stage: str, total: int, done: int) -> None:
        """Create the stage's progress artifact."""
        self._meter, self._last = Meter(total, done, clock=self._clock), self._clock()
        with _Advisory():
            made = create_progress_artifact(
                100 * self._meter.fraction,
                key=artifact_key(self._run, stage),
                description=f"{stage} of {self._run}",
            )
            self._artifact = cast("UUID", made)  # a coroutine only inside an event loop

    def job_started(self, stage: str, shard: str) -> None:
        """Say nothing: one line per shard is enough."""

    def job_progress(self, stage: str, shard: str, done: int, total: int) -> None:
        """Note progress."""
        self._meter.advance(shard, done, total)
        if self._clock() - self._last >= UPDATE_SECONDS:
            self._update(stage)

    def job_finished(self, stage: str, receipt: Receipt) -> None:
        """Note and log a finished shard."""
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
        get_run_logger().warning("%s: %s: again, because %s", stage, shard, reason)

    def job_failed(self, stage: str, shard: str, error: str) -> None:
        """Log a shard that used up its attempts."""
        self._meter.restart(shard)
        get_run_logger().error("%s: %s: failed: %s", stage, shard, error)

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Show the final state."""
        self._update(stage)

    def _update(self, stage: str) -> None:
        self._last = self._clock()
        if self._artifact is None:
            return
        text = describe(self._meter, UNITS.get(stage, "steps"))
        with _Advisory():
            update_progress_artifact(self._artifact, 100 * self._meter.fraction, f"{stage}: {text}")


class _Advisory:
    """Lets nothing of what only informs stop the work: the API may be slow or gone."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> bool:
        lost = kind is not None and issubclass(kind, Exception)
        if lost:
            get_run_logger().warning("an artifact could not be written: %s", error)
        return lost


def artifact_key(*names: str) -> str:
    """Return a key of lowercase letters, digits and dashes, as Prefect wants it."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(names).lower()).strip("-")


def _publish(found: facts.Facts) -> None:
    rows = [dict(zip(tables.HEADER, cells, strict=True)) for cells in found.cells]
    name = found.run.name
    header = tables.markdown_table(("", name), facts.header(found))
    accuracy = tables.markdown_table(tables.HEADER, found.cells)
    where = found.run.store.uri(found.report)
    parts = (f"# {name}", header, "## Accuracy", accuracy, tables.NOTE, f"Report: {where}")
    text = "\n\n".join(parts)
    with _Advisory():
        create_table_artifact(rows, key=artifact_key(name, "accuracy"), description=tables.NOTE)
        create_markdown_artifact(text, key=artifact_key(name, "report"), description=name)
