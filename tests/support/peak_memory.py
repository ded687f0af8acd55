"""A program: one stage of a preset with networks that are not trained, and its peak memory.

    python -m tests.support.peak_memory PRESET STAGE [train=N] [test=N] [streamed] [SETTING ...]

Stages that read real images take drawn ones, N of each split. It prints the peak resident bytes of
its process. What it imports is what a worker on Ray imports.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import ray  # noqa: F401 - the process of a worker has imported it
import torch

from benchmarks.untrained import untrained_teacher
from distill_core.allocator import keep_freed_memory
from distill_core.config.load import load_run
from distill_core.config.schema import RunConfig
from distill_core.labels.relabel import relabel_shard
from distill_core.models.ensemble import as_ensemble
from distill_core.recover.batching import LaunchLimit
from distill_core.recover.setup import RecoverySetup
from distill_core.recover.shard import recover_shard
from distill_core.selection.class_images import ClassImages
from distill_core.sharding import ClassShard
from distill_core.storage.image_shards import ImageRows
from flows.estimate.memory.real_data import RealData
from flows.estimate.workload import class_shards
from tests.support import peak_real
from tests.support.peak_images import pixels

STATUS = Path("/proc/self/status")  # of Linux; getrusage would count the parent's memory, too


def recover(config: RunConfig, shard: ClassShard) -> None:
    """Make the images of the first launch of a shard."""
    side = config.data.side
    real = ClassImages(lambda label: np.arange(50), lambda rows: pixels(len(rows), side))
    teachers = [untrained_teacher(config, number) for number in config.recover.teachers]
    setup = RecoverySetup(config.recover, teachers, config.seed, None)
    batches = shard.batches
    together = LaunchLimit().size(batches, side=side, device="cpu")
    recover_shard(batches[:together], setup, real=real)


def relabel(config: RunConfig, shard: ClassShard) -> None:
    """Label one view of the images of a shard."""
    teachers = [untrained_teacher(config, number) for number in config.relabel.teachers]
    images = ImageRows(shard.images, pixels(shard.num_images, config.data.side))
    labeller = as_ensemble(teachers, config.relabel.weighting)
    relabel_shard(images, range(1), config=config.relabel, teacher=labeller, seed=config.seed)


MAKING = {"recover": recover, "relabel": relabel}
READING = {
    "squeeze": peak_real.squeeze,
    "statistics": peak_real.statistics,
    "select": peak_real.select,
    "posttrain": peak_real.posttrain,
    "validate": peak_real.validate,
}


def split_arguments(arguments: Sequence[str]) -> tuple[RealData, list[str]]:
    """Return the real images that some arguments describe, and the other arguments."""
    counts = dict(a.split("=") for a in arguments if a.startswith(("train=", "test=")))
    resident = 0.0 if "streamed" in arguments else math.inf
    real = RealData(*(int(counts.get(name, 0)) for name in ("train", "test")), resident=resident)
    own = {f"{name}={value}" for name, value in counts.items()} | {"streamed"}
    return real, [argument for argument in arguments if argument not in own]


def main(preset: str, stage: str, *arguments: str) -> None:
    """Run one stage of a preset and print the peak memory of this process in bytes."""
    keep_freed_memory()
    torch.set_num_threads(1)
    real, settings = split_arguments(arguments)
    config = load_run(preset, settings)
    if stage in MAKING:
        MAKING[stage](config, max(class_shards(config), key=lambda shard: shard.num_images))
    else:
        READING[stage](config, real)
    found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    print(1024 * int(found[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
