"""The jobs that choose the real images a round starts from: one per block of classes."""

from __future__ import annotations

from collections.abc import Mapping

from distill_core.keys import select_key
from tasks.jobs import Job
from tasks.stages.inputs import Block, Jobs, RunInputs, block_name, first_images, named
from tasks.stages.names import in_round


def select_jobs(plan: RunInputs, number: int) -> Jobs:
    """Return one job per block of classes for round `number`, if starts are judged; else none."""
    keys = selection_keys(plan, number)
    if not keys:
        return {}
    starts = plan.run.config.round_starts
    shared = {
        "taken": starts[number - 1] - starts[number - 2] if number > 1 else 0,
        "student": plan.student(number).key if number > 1 else None,
    }
    return {
        in_round(plan.run.config, "select", number): tuple(
            Job(
                key,
                selection_name(block),
                named(block) | shared | {"before": keys[-2][block] if number > 1 else None},
            )
            for block, key in keys[-1].items()
        )
    }


def selection_keys(plan: RunInputs, number: int) -> list[Mapping[Block, str]]:
    """Return the key of what each block of classes starts from, round by round up to `number`."""
    config = plan.run.config
    if config.recover.init != "judged":
        return []
    blocks = dict.fromkeys(first_images(shard) for shard in plan.shards)
    teacher = plan.digests(config.recover.teachers[:1])[0]
    keys: list[Mapping[Block, str]] = []
    for one, start in enumerate(config.round_starts[:number], start=1):
        keys.append(
            {
                block: select_key(
                    config,
                    [image.wnid for image in block],
                    teacher=teacher,
                    student=plan.student(one).digest if one > 1 else None,
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
