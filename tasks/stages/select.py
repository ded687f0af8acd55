"""The select stage: the real images that a round starts from, by block of classes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill_core.keys import select_key
from distill_core.sharding import Group
from distill_core.storage.manifest import ManifestEntry
from distill_core.storage.shard_store import ShardStore
from tasks.jobs import Job, Receipt
from tasks.stages.inputs import Block, Jobs, RunInputs, block_name, classes_of, first_images
from tasks.stages.names import StageId
from tasks.stages.reads import Reads
from tasks.stages.worker import WEIGHTS, WorkerContext

if TYPE_CHECKING:
    from distill_core.selection.select import ClassSelection

SELECTION = "parquet"  # suffix of the file of a selection


@dataclass(frozen=True)
class SelectPayload:
    """The block of classes to select real images of, and the round before."""

    classes: Group
    taken: int  # images per class that the round before took from its selection
    student: Reads | None  # of the rounds before
    before: Reads | None  # the selection of the round before


def select_jobs(plan: RunInputs, stage: StageId) -> Jobs:
    """Return one job per block of classes for the last round that a stage covers."""
    number, starts = stage.last_round(plan.run.config), plan.run.config.round_starts
    taken = starts[number - 1] - starts[number - 2] if number > 1 else 0
    student = Reads.of([plan.student(number)], WEIGHTS) if number > 1 else None
    before = made_selections(plan, number - 1)[-1] if number > 1 else {}

    def payload(block: Block) -> SelectPayload:
        selection = Reads.of([before[block]], SELECTION) if number > 1 else None
        return SelectPayload(classes_of(block), taken, student, selection)

    keys = _selection_keys(plan, number, before)
    return {
        stage: tuple(Job(key, selection_name(block), payload(block)) for block, key in keys.items())
    }


def made_selections(plan: RunInputs, number: int) -> list[Mapping[Block, ManifestEntry]]:
    """Return the selection of each block of classes, round by round up to `number`.

    Blocks that were given up are left out, and so they are in all later rounds.

    Raises:
        NotReady: a selection is not made yet.
    """
    rounds: list[Mapping[Block, ManifestEntry]] = []
    for part in range(1, number + 1):
        keys = _selection_keys(plan, part, rounds[-1] if rounds else {})
        names = {selection_name(block): block for block in keys}
        planned = {name: keys[block] for name, block in names.items()}
        made = plan.made(StageId.up_to(plan.run.config, "select", part), planned)
        rounds.append({names[name]: entry for name, entry in made.items()})
    return rounds


def _selection_keys(
    plan: RunInputs, number: int, before: Mapping[Block, ManifestEntry]
) -> dict[Block, str]:
    """Return the keys of the selections of a round, by block of classes.

    Args:
        plan: of the run.
        number: of the round; the first is 1.
        before: the selections of the round before.
    """
    config = plan.run.config
    teacher = plan.digests(config.recover.teachers[:1])[0]
    blocks = dict.fromkeys(first_images(shard) for shard in plan.shards)
    return {
        block: select_key(
            config,
            [image.wnid for image in block],
            teacher=teacher,
            student=plan.student(number).sha256(WEIGHTS) if number > 1 else None,
            before=before[block].content(SELECTION) if number > 1 else None,
            start=config.round_starts[number - 1],
            fingerprints=plan.index.fingerprints,
        )
        for block in blocks
        if number == 1 or block in before
    }


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
        taken = payload.taken
        before = {} if payload.before is None else read_selection(self.context, payload.before)
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


def read_selection(context: WorkerContext, reads: Reads) -> dict[str, ClassSelection]:
    """Return a committed selection, by class."""
    from distill_core.selection.select import decode_selection

    shard_store = ShardStore(context.run.store, "select")
    (marker,) = reads.markers(shard_store, SELECTION)
    return decode_selection(shard_store.load(marker, SELECTION), where=marker.file(SELECTION).path)
