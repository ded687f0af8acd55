"""The worker that measures what real images of each class do to a teacher."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tasks.jobs import Job, Receipt
from tasks.stages.worker import WorkerContext, receipt

if TYPE_CHECKING:
    from distill_core.storage.statistics_files import Rows

POOLED = "pooled.safetensors"  # what all classes of a block do together


class StatisticsWorker:
    """Measures what each class of real images does to the teacher, for one block of classes."""

    def __init__(self, **context: Any) -> None:
        self.context = WorkerContext("statistics", **context)

    def peek(self) -> tuple[int, int]:
        """Return (classes done, classes in total) of the current job."""
        return self.context.gauge

    def run(self, job: Job) -> Receipt:
        """Write the statistics of one block and return the receipt."""
        from distill_core.storage.statistics_files import encode_pooled, encode_statistics

        if done := self.context.begin(job):
            return receipt(done, won=False)
        since, classes = time.perf_counter(), job.payload["classes"]
        measured = []
        for number, (label, wnid) in enumerate(classes):
            measured.append(self._measure(label, wnid, job.payload["teacher"]))
            self.context.progress(number + 1, len(classes))
        files = {"safetensors": encode_statistics([wnid for _, wnid in classes], measured)}
        if self.context.config.recover.measured & {"channels", "patches"}:
            files[POOLED] = encode_pooled(measured)
        return self.context.commit(job, files, since=since, rows=len(classes), classes=len(classes))

    def _measure(self, label: int, wnid: str, teacher: int) -> Rows:
        """Return what the images of a class do to a teacher, as far as a term asks."""
        from distill_core.statistics.measure_for_terms import measure_for

        config = self.context.config.recover
        return measure_for(
            config,
            label,
            wnid,
            self.context.plan.index.rows_of("train", label),
            pixels_of=lambda rows: self.context.real.pixels(rows),
            teacher=self.context.teacher(teacher),
            scorer=self.context.teacher(config.teachers[0]),
            seed=self.context.config.seed,
            device=self.context.device,
        )
