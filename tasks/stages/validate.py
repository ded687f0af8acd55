"""The worker that judges a finished student on one block of real test images."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from distill_core.evaluation.accuracy import total
from distill_core.storage.shard_store import ShardStore
from tasks.jobs import Job, Receipt
from tasks.stages.worker import WorkerContext, receipt, require

# Which file of a trained student holds which weights.
WEIGHTS: Mapping[str, str] = {"last": "safetensors", "ema": "ema.safetensors"}


class ValidateWorker:
    """Counts how often a student is right: last and averaged weights, one block of images."""

    def __init__(self, **context: Any) -> None:
        self.context = WorkerContext("validate", **context)
        self._weights: tuple[str, Mapping[str, bytes]] | None = None  # of the last student, by key

    def peek(self) -> tuple[int, int]:
        """Return (images judged, images in total) of the current job, once per weights."""
        return self.context.gauge

    def run(self, job: Job) -> Receipt:
        """Write the counts of one student on one block and return the receipt."""
        from distill_core.evaluation.validate import encode_counts, validate

        if done := self.context.begin(job):
            return receipt(done, won=False)
        since, rows = time.perf_counter(), range(*job.payload["rows"])
        images, labels = self.context.split("test", rows)
        counted = {}
        for name, weights in self._read(job.payload["weights"]).items():
            counted[name] = validate(
                weights,
                images,
                labels,
                student=self.context.config.posttrain.students[job.payload["student"]],
                data=self.context.config.data,
                device=self.context.device,
            )
            self.context.progress(len(rows) * len(counted), len(rows) * len(WEIGHTS))
        sums = {name: asdict(total(counts)) for name, counts in counted.items()}
        return self.context.commit(
            job,
            {"json": encode_counts(counted)},
            since=since,
            rows=len(rows),
            classes=len(counted["last"]),
            summary={
                "weights": job.payload["weights"],
                "rows": job.payload["rows"],
                "of": self.context.plan.test_images,
                **sums,
            },
        )

    def _read(self, key: str) -> Mapping[str, bytes]:
        """Return a student's weights by name; its blocks follow one another."""
        if self._weights is None or self._weights[0] != key:
            shard_store = ShardStore(self.context.run.store, "posttrain")
            marker = require(shard_store, key)
            self._weights = (
                key,
                {n: shard_store.load(marker, suffix) for n, suffix in WEIGHTS.items()},
            )
        return self._weights[1]
