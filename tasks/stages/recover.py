"""The jobs that make images: class statistics, recovery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distill_core.config.recovery import RecoverConfig
from distill_core.keys import ImageSet, RecoverReads, recover_key, statistics_key
from distill_core.sharding import ClassShard
from tasks.jobs import Job
from tasks.stages.inputs import (
    Block,
    Jobs,
    RunInputs,
    block_name,
    first_images,
    manifest_name,
    named,
    shard_name,
)
from tasks.stages.names import in_round, is_last
from tasks.stages.select import selection_keys, selection_name


def statistics_jobs(plan: RunInputs) -> Jobs:
    """Return one job per block of classes, if a term reads class statistics; else none."""
    if not plan.run.config.recover.needs_class_statistics:
        return {}
    return {
        "statistics": tuple(
            Job(key, _statistics_name(block, teacher), named(block) | {"teacher": teacher})
            for teacher in plan.run.config.recover.teachers
            for block, key in statistics_keys(plan, teacher).items()
        )
    }


def statistics_keys(plan: RunInputs, teacher: int) -> dict[Block, str]:
    """Return the key of what each block's classes do to a teacher."""
    blocks = dict.fromkeys(first_images(shard) for shard in plan.shards)
    config = plan.run.config.recover
    rankers = config.teachers[:1] if "originals" in config.measured else ()
    return {
        block: statistics_key(
            plan.run.config,
            [image.wnid for image in block],
            teachers=plan.digests([teacher, *rankers]),
            fingerprints=plan.index.fingerprints,
            labels=[image.label for image in block],
        )
        for block in blocks
    }


@dataclass(frozen=True)
class _Read:
    """The keys of what images are made from, by block of classes."""

    statistics: Sequence[Mapping[Block, str]]  # by teacher
    selections: Sequence[Mapping[Block, str]]  # by round


def recover_jobs(plan: RunInputs, number: int) -> Jobs:
    """Return one job per class shard of the first rounds, up to `number`, and image set.

    None where class statistics, or the choice of real images, were given up. Random real images
    come with the last round.
    """
    config = plan.run.config.recover
    asked = config.teachers if config.needs_class_statistics else ()
    read = _Read([statistics_keys(plan, one) for one in asked], selection_keys(plan, number))
    stage = in_round(plan.run.config, "recover", number)
    return {
        manifest_name(stage, images): tuple(
            _recover_job(plan, images, shard, read) for shard in _shards_of(plan, images, number)
        )
        for images in (plan.image_sets if is_last(stage) else ("distilled",))
    }


def _shards_of(plan: RunInputs, images: ImageSet, number: int) -> list[ClassShard]:
    """Return the class shards of one set for which everything that they read exists."""
    config = plan.run.config.recover_for(images)
    given_up: dict[int, frozenset[str]] = {}
    for one in range(1, number + 1):
        names = plan.missing("statistics") if config.needs_class_statistics else ()
        if config.init == "judged":
            names = (*names, *plan.missing(in_round(plan.run.config, "select", one)))
        given_up[one] = frozenset(names)
    return [
        shard
        for shard in plan.shards_of(number)
        if given_up[plan.round_of(shard)].isdisjoint(_blocks_read(shard, config))
    ]


def _blocks_read(shard: ClassShard, config: RecoverConfig) -> set[str]:
    """Return the names of the shards of other stages that a class shard may read."""
    block = first_images(shard)
    return {selection_name(block), *(_statistics_name(block, one) for one in config.teachers)}


def _recover_job(plan: RunInputs, images: ImageSet, shard: ClassShard, read: _Read) -> Job:
    config, number = plan.run.config.recover_for(images), plan.round_of(shard)
    block = first_images(shard)
    statistics = [keys[block] for keys in read.statistics] if config.needs_class_statistics else []
    selection = read.selections[number - 1][block] if config.init == "judged" else None
    student = plan.student(number) if config.needs_student and number > 1 else None
    every = _of_every_class(plan, read) if config.needs_every_class else []
    key = recover_key(
        plan.run.config,
        images,
        shard,
        reads=RecoverReads(
            teachers=plan.digests(config.teachers),
            statistics=statistics,
            every=[key for keys in every for key in keys],
            selection=selection,
            student=None if student is None else student.digest,
        ),
        fingerprints=plan.index.fingerprints,
    )
    payload = {
        "set": images,
        "batches": {"groups": shard.groups, "grids": shard.grids},
        "statistics": statistics,
        "every": every,
        "selection": selection,
        "student": None if student is None else student.key,
        "round_start": plan.run.config.round_starts[number - 1],
    }
    return Job(key, shard_name(images, shard), payload)


def _of_every_class(plan: RunInputs, read: _Read) -> list[list[str]]:
    """Return the keys of all blocks of classes, by teacher, but for those that were given up."""
    given_up = frozenset(plan.missing("statistics"))
    teachers = plan.run.config.recover.teachers
    return [
        [key for block, key in keys.items() if _statistics_name(block, teacher) not in given_up]
        for teacher, keys in zip(teachers, read.statistics, strict=True)
    ]


def _statistics_name(block: Block, teacher: int) -> str:
    name = block_name(block)
    return f"{name}_t{teacher}" if teacher else name
