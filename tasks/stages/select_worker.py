"""The worker that chooses the real images a round starts from."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from distill_core.storage.shard_store import ShardStore
from tasks.jobs import Job, Receipt
from tasks.stages.select import SelectPayload
from tasks.stages.worker import WorkerContext, receipt, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distill_core.models.teacher import FrozenTeacher
    from distill_core.selection.select import ClassSelection


class SelectWorker:
    """Judges the real images of one block of classes, and orders them."""

    def __init__(self, **context: Any) -> None:
        self.context = WorkerContext("select", **context)

    def peek(self) -> tuple[int, int]:
        """Return (classes done, classes in total) of the current job."""
        return self.context.current_progress

    def run(self, job: Job[SelectPayload]) -> Receipt:
        """Write the selection of one block and return the receipt."""
        from distill_core.selection.select import encode_selection, totals

        if done := self.context.begin(job):
            return receipt(done, won=False)
        since, classes, selected = time.perf_counter(), job.payload.classes, {}
        before = self._before(job.payload.before)
        student = self.context.student(job.payload.student)
        for number, (label, wnid) in enumerate(classes, start=1):
            last = before.get(wnid)
            taken = job.payload.taken if last else 0
            selected[wnid] = self._select(label, wnid, student, last, taken)
            self.context.progress(number, len(classes))
        return self.context.commit(
            job,
            {"parquet": encode_selection(selected)},
            since=since,
            rows=len(classes),
            classes=len(classes),
            summary=totals(list(selected.values())),
        )

    def _before(self, key: str | None) -> Mapping[str, ClassSelection]:
        """Return what the round before chose, by class; nothing in the first round."""
        return {} if key is None else read_selection(self.context, key)

    def _select(
        self,
        label: int,
        wnid: str,
        student: FrozenTeacher | None,
        last: ClassSelection | None,
        taken: int,
    ) -> ClassSelection:
        """Order the images of one class that no earlier round took."""
        import numpy as np

        from distill_core.selection.select import candidates_of, gets_right, select_class

        recover, device = self.context.config.recover, self.context.device
        used = np.zeros(0, np.int32) if last is None else last.used_after(taken)
        rows, seed = self.context.plan.index.rows_of("train", label), self.context.config.seed
        chosen = candidates_of(len(rows), wnid, used=used, limit=recover.candidates, seed=seed)
        pixels = self.context.real.pixels(rows[chosen])
        teacher = gets_right(
            self.context.teacher(recover.teachers[0]), pixels, label, device=device
        )
        known = None if student is None else gets_right(student, pixels, label, device=device)
        return select_class(chosen, teacher, known, used=used)


def read_selection(context: WorkerContext, key: str) -> dict[str, ClassSelection]:
    """Return a committed selection, by class."""
    from distill_core.selection.select import decode_selection

    shard_store = ShardStore(context.run.store, "select")
    marker = require(shard_store, key)
    return decode_selection(shard_store.load(marker, "parquet"), where=marker.file("parquet").path)
