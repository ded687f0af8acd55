"""The select stage: the real images that a round starts from, by block of classes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill_core.keys import select_key
from distill_core.sharding import Group
from distill_core.storage.shard_store import ShardStore
from tasks.jobs import Job, Receipt
from tasks.stages.inputs import Block, Jobs, RunInputs, block_name, classes_of, first_images
from tasks.stages.names import StageId
from tasks.stages.worker import WorkerContext, require

if TYPE_CHECKING:
    from distill_core.selection.select import ClassSelection


@dataclass(frozen=True)
class SelectPayload:
    """The block of classes to select real images of, and the round before."""

    classes: Group
    taken: int  # images per class that the round before took from its selection
    student: str | None  # key of the student of the rounds before
    before: str | None  # key of the selection of the round before


def select_jobs(plan: RunInputs, stage: StageId) -> Jobs:
    """Return one job per block of classes for the last round that a stage covers."""
    number, starts = stage.last_round(plan.run.config), plan.run.config.round_starts
    keys = selection_keys(plan, number)
    taken = starts[number - 1] - starts[number - 2] if number > 1 else 0
    student = plan.student(number).key if number > 1 else None
    return {
        stage: tuple(
            Job(
                key,
                selection_name(block),
                SelectPayload(
                    classes_of(block), taken, student, keys[-2][block] if number > 1 else None
                ),
            )
            for block, key in keys[-1].items()
        )
    }


def selection_keys(plan: RunInputs, number: int) -> list[Mapping[Block, str]]:
    """Return the key of the selection of each block of classes, round by round up to `number`."""
    config = plan.run.config
    if config.recover.init != "judged":
        return []
    blocks = dict.fromkeys(first_images(shard) for shard in plan.shards)
    teacher = plan.digests(config.recover.teachers[:1])[0]
    keys: list[Mapping[Block, str]] = []
    for part, start in enumerate(config.round_starts[:number], start=1):
        keys.append(
            {
                block: select_key(
                    config,
                    [image.wnid for image in block],
                    teacher=teacher,
                    student=plan.student(part).digest if part > 1 else None,
                    before=keys[-1][block] if keys else None,
                    start=start,
                    fingerprints=plan.index.fingerprints,
                )
                for block in blocks
            }
        )
    return keys


def selection_name(block: Block) -> str:
    """Return what people call the selection of a block of classes, in whatever round."""
    return f"{block_name(block)}_select"


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
            return done
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
