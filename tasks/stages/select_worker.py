"""The worker that selects the real images a round starts from."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from distill_core.storage.shard_store import ShardStore
from tasks.jobs import Job, Receipt
from tasks.stages.select import SelectPayload
from tasks.stages.worker import WorkerContext, receipt, require

if TYPE_CHECKING:
    from distill_core.selection.select import ClassSelection


class SelectWorker:
    """Classifies the real images of one block of classes, and orders them."""

    def __init__(self, **context: Any) -> None:
        self.context = WorkerContext("select", **context)

    def peek(self) -> tuple[int, int]:
        """Return (classes done, classes in total) of the current job."""
        return self.context.current_progress

    def run(self, job: Job[SelectPayload]) -> Receipt:
        """Write the selection of one block and return the receipt."""
        from distill_core.selection.select import (
            SelectionSetup,
            encode_selection,
            select_block,
            totals,
        )

        if done := self.context.begin(job):
            return receipt(done, won=False)
        since, payload, config = time.perf_counter(), job.payload, self.context.config
        key, taken = payload.before, payload.taken
        before = {} if key is None else read_selection(self.context, key)
        setup = SelectionSetup(
            self.context.teacher(config.recover.teachers[0]),
            self.context.student(payload.student),
            config.recover.candidates,
            config.seed,
        )
        selected = select_block(
            payload.classes,
            self.context.class_images,
            setup,
            used={wnid: selection.used_after(taken) for wnid, selection in before.items()},
            progress=self.context.progress,
        )
        return self.context.commit(
            job,
            {"parquet": encode_selection(selected)},
            since=since,
            rows=len(selected),
            classes=len(selected),
            summary=totals(list(selected.values())),
        )


def read_selection(context: WorkerContext, key: str) -> dict[str, ClassSelection]:
    """Return a committed selection, by class."""
    from distill_core.selection.select import decode_selection

    shard_store = ShardStore(context.run.store, "select")
    marker = require(shard_store, key)
    return decode_selection(shard_store.load(marker, "parquet"), where=marker.file("parquet").path)
