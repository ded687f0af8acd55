"""A program: one stage of a preset with networks that are not trained, and its peak memory.

    python -m tests.support.peak_memory PRESET STAGE [SETTING ...]

It prints the peak resident bytes of its process. What it imports is what a worker on Ray imports.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import ray  # noqa: F401 - the process of a worker has imported it
import torch

from distill_core.allocator import keep_freed_memory
from distill_core.config.load import load_run
from distill_core.config.schema import RunConfig
from distill_core.labels.relabel import relabel_shard
from distill_core.models.build import build_model, head_width
from distill_core.models.ensemble import as_ensemble
from distill_core.models.files import load_teacher, teacher_files
from distill_core.models.spec import TeacherSpec
from distill_core.models.teacher import FrozenTeacher
from distill_core.recover.batching import LaunchLimit
from distill_core.recover.setup import RecoverySetup
from distill_core.recover.shard import recover_shard
from distill_core.selection.class_images import ClassImages
from distill_core.sharding import ClassShard
from distill_core.storage.image_shards import ImageRows
from flows.estimate.workload import class_shards

STATUS = Path("/proc/self/status")  # of Linux; getrusage would count the parent's memory, too


def teacher(config: RunConfig, number: int) -> FrozenTeacher:
    """Return a teacher of a run as a worker reads it, without training."""
    model, data = config.squeeze.member(number).model, config.data
    spec = TeacherSpec(
        model=model,
        num_classes=data.num_classes,
        class_hash="0" * 16,
        mean=data.mean,
        std=data.std,
        side=data.side,
        features=head_width(model),
        origin="test",
    )
    files = teacher_files(build_model(model, data.num_classes, seed=0), spec)
    return load_teacher(files["safetensors"], files["json"], precision=config.precision)


def pixels(count: int, side: int) -> np.ndarray:
    """Return drawn images, (count, 3, S, S) uint8."""
    drawn: np.ndarray = np.random.default_rng(0).integers(0, 256, (count, 3, side, side), np.uint8)
    return drawn


def recover(config: RunConfig, shard: ClassShard) -> None:
    """Make the images of the first launch of a shard."""
    side = config.data.side
    real = ClassImages(lambda label: np.arange(50), lambda rows: pixels(len(rows), side))
    teachers = [teacher(config, number) for number in config.recover.teachers]
    setup = RecoverySetup(config.recover, teachers, config.seed, None)
    batches = shard.batches
    together = LaunchLimit().size(batches, side=side, device="cpu")
    recover_shard(batches[:together], setup, real=real)


def relabel(config: RunConfig, shard: ClassShard) -> None:
    """Label one view of the images of a shard."""
    teachers = [teacher(config, number) for number in config.relabel.teachers]
    images = ImageRows(shard.images, pixels(shard.num_images, config.data.side))
    labeller = as_ensemble(teachers, config.relabel.weighting)
    relabel_shard(images, range(1), config=config.relabel, teacher=labeller, seed=config.seed)


STAGES = {"recover": recover, "relabel": relabel}


def main(preset: str, stage: str, *settings: str) -> None:
    """Run one stage of a preset and print the peak memory of this process in bytes."""
    keep_freed_memory()
    torch.set_num_threads(1)
    config = load_run(preset, settings)
    STAGES[stage](config, max(class_shards(config), key=lambda shard: shard.num_images))
    found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    print(1024 * int(found[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
