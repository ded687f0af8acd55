"""Golden numbers of every preset: its method, unchanged, on four classes of 16 x 16 pixels.

`shrunk` is the one block of overrides: sizes and counts become tiny, and every teacher a narrow
convnet3. Terms, weights, learning rates, views, mixes, temperatures and schedules stay the
preset's, so a change of any of them, or of what it means, changes a number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from distill_core.config.schema import RunConfig
from distill_core.models.teacher import FrozenTeacher
from distill_core.recover.batch import RecoveredBatch
from distill_core.recover.optimise import recover_batch
from distill_core.recover.setup import RecoverySetup
from distill_core.selection.class_images import ClassImages
from distill_core.selection.starts import Starts
from distill_core.sharding import Batch, ClassEntry, plan_shards
from distill_core.statistics.measure import MeasureSetup, measure_block
from distill_core.storage.statistics_files import (
    POOLED,
    Expected,
    decode_pooled,
    decode_statistics,
    encode_block,
    pooled,
)
from distill_core.training.supervised import Labelled
from tests.golden.rounds import Rounds, label_source, trained
from tests.support.shrunk import REAL_PER_CLASS, shrunk
from tests.support.tiny import CLASSES, labelled, tiny_teacher

Numbers = dict[str, list[float]]


def numbers_of(preset: str, *overrides: str) -> Numbers:
    """Return what a preset does to the tiny data.

    Args:
        preset: its name.
        overrides: of the preset, before it is shrunk.

    Returns:
        `losses`: the total of every step and batch; `pixels`: the mean of every image, 0 to 255;
        `labels`: the length of every image's logits in the first view; `student`: the loss of
        every epoch; `average`: how far its averaged weights are from its last ones.
    """
    run = shrunk(preset, *overrides)
    teachers = _teachers(run)
    real = labelled(CLASSES * REAL_PER_CLASS)
    made = _recovered(run, teachers, real)
    pixels = np.concatenate([part.pixels for _, part in made])
    labels, student = label_source(run, teachers, made), trained(run, teachers, made)
    rows = np.arange(len(pixels))
    return {
        "losses": [point["total"] for _, part in made for point in part.trace],
        "pixels": pixels.reshape(len(pixels), -1).mean(axis=1).tolist(),
        "labels": finite(labels.view(0).logits(rows)).norm(dim=1).tolist(),
        "student": [point["loss"] for point in student.result["curve"]],
        "average": [distance(student.ema, student.last)],
    }


def finite(logits: Tensor) -> Tensor:
    """Return logits without those that a scheme leaves out."""
    return logits.double().nan_to_num(neginf=0.0)


def distance(one: nn.Module, other: nn.Module) -> float:
    """Return the length of the difference of two networks' weights."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return float(torch.stack([(a - b).detach().double().norm() for a, b in pairs]).norm())


def _teachers(run: RunConfig) -> list[FrozenTeacher]:
    count = 1 + len(run.squeeze.pool)
    space = {"mean": run.data.mean, "std": run.data.std}
    return [tiny_teacher("float64", seed=number, **space) for number in range(count)]


def _recovered(
    run: RunConfig, teachers: Sequence[FrozenTeacher], real: Labelled
) -> list[tuple[Batch, RecoveredBatch]]:
    """Return every batch of the run, and what recover makes of it, round by round."""
    config, made = run.recover, list[tuple[Batch, RecoveredBatch]]()
    asked = [teachers[number] for number in config.teachers]
    rounds = Rounds(run, teachers, real)
    starts = Starts(
        config, run.seed, asked[0], images=_images(real), selected=rounds.judged, reach=run.ipc
    )
    for batch in _batches(run):
        if batch[0].ipc_index in run.round_starts[rounds.number :]:
            rounds.begin(made)
        of_batch = recover_batch(
            batch,
            RecoverySetup(config, asked, run.seed, rounds.student),
            start=starts.of(batch),
            real=_expected(run, batch, asked, real),
        )
        made.append((batch, of_batch))
    return made


def _batches(run: RunConfig) -> list[Batch]:
    shards = plan_shards(
        [ClassEntry(label, f"class_{label}") for label in range(CLASSES)],
        ipc=run.ipc,
        ipc_range=run.recover.ipc_range,
        batch_size=run.recover.batch_size,
        composition=run.recover.composition,
    )
    return [batch for shard in shards for batch in shard.batches]


def _expected(
    run: RunConfig, batch: Batch, teachers: Sequence[FrozenTeacher], real: Labelled
) -> list[Expected]:
    """Return what terms hold a batch against, by teacher; every class is of one block."""
    config = run.recover
    if not config.needs_class_statistics:
        return []
    names = [f"class_{label}" for label in range(CLASSES)]
    found = []
    for teacher in teachers:
        setup = MeasureSetup(config, teacher, scorer=teachers[0], seed=run.seed)
        measured = measure_block(list(enumerate(names)), _images(real), setup)
        files = encode_block(measured, config)
        block = decode_statistics(files["safetensors"])
        every = pooled([decode_pooled(files[POOLED])]) if POOLED in files else None
        found.append(block.of(batch, config, every))
    return found


def _images(real: Labelled) -> ClassImages:
    return ClassImages(
        lambda label: np.flatnonzero(real.labels == label), lambda rows: real.pixels[rows]
    )
