"""The pack stage: a copy of the real images in large files, by block of classes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from distill_core.data.packing.build import write_block
from distill_core.data.packs.blocks import STAGE as FOLDER
from distill_core.data.packs.blocks import (
    PackBlock,
    block_classes,
    image_bytes,
    pack_blocks,
)
from distill_core.environment import made_with
from distill_core.storage.pieces import PieceWriter
from tasks.jobs import Job, Receipt
from tasks.stages.expected import Expected
from tasks.stages.finished import receipt
from tasks.stages.inputs import Jobs, RunInputs
from tasks.stages.names import StageId
from tasks.stages.worker import WorkerContext


@dataclass(frozen=True)
class PackPayload:
    """The block of classes to pack."""

    block: PackBlock


def pack_jobs(plan: RunInputs, stage: StageId) -> Jobs:
    """Return one job per block of classes of each split."""
    data = plan.run.config.data
    if data.pack is None:
        return {stage: ()}
    blocks = pack_blocks(plan.index, data.pack, data)
    return {stage: tuple(Job(block.key, block.name, PackPayload(block)) for block in blocks)}


def expected_packs(expected: Expected, _stage: StageId) -> int | None:
    """Return the number of blocks, as if every class had images; None: not known yet."""
    data = expected.config.data
    counts = (expected.train_images, expected.test_images)
    if data.pack is None or not data.num_classes:
        return None
    total = 0
    for images in counts:
        if images is None:
            return None
        classes = block_classes(images, data.num_classes, data.pack, image_bytes(data))
        total += math.ceil(data.num_classes / classes) if images else 0
    return total


class PackWorker:
    """Packs the images of one block of classes."""

    def __init__(self, **context: Any) -> None:
        self.context = WorkerContext(FOLDER, **context)

    def peek(self) -> tuple[int, int]:
        """Return (images done, images in total) of the current job."""
        return self.context.current_progress

    def run(self, job: Job[PackPayload]) -> Receipt:
        """Write the packs and the table of one block and return the receipt."""
        if done := self.context.begin(job):
            return done
        data, block = self.context.config.data, job.payload.block
        assert data.pack is not None
        writer = PieceWriter(self.context.shard_store, job.key, data.pack.pack_bytes)
        try:
            facts = write_block(
                writer, data, self.context.plan.index, block, progress=self.context.progress
            )
        except BaseException:
            writer.discard()
            raise
        facts = replace(facts, made_with=made_with(self.context.device))
        marker = self.context.patience(facts.seconds).repeat(
            lambda: writer.commit(job.shard, facts), self.context.notice
        )
        return self.context.noted(receipt(marker, won=marker.token == writer.token))
