"""A process that post-trains on stand-in images, and the memory that it takes.

It prints JSON lines, and waits after each for a line on its standard input: once it holds all
images, and once it has trained.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.untrained import untrained_teacher
from distill_core.allocator import keep_freed_memory
from distill_core.config.load import load_run
from distill_core.config.schema import RunConfig
from distill_core.labels.views import sample_label_view
from distill_core.posttrain.images import shared_images
from distill_core.posttrain.student import StudentTask
from distill_core.posttrain.train import SoftLabels, train_on_shards
from distill_core.sharding import ImageId
from distill_core.storage.image_shards import ImageRows
from distill_core.storage.label_rows import Affine, LabelRows
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.supervised import Labelled

IPC, BITS = 20, 8
SHARD_CLASSES = 50
STEPS = 2


class Enough(Exception):
    """So many steps are taken."""


@dataclass(frozen=True)
class Set:
    """Stand-in images and labels: noise, drawn again whenever it is read.

    Args:
        config: of the run.
        classes: of the set; the network has as many outputs as the config has classes.
    """

    config: RunConfig
    classes: int

    @property
    def shards(self) -> range:
        """Return the first class of each shard."""
        return range(0, self.classes, SHARD_CLASSES)

    def names(self, shard: int) -> tuple[ImageId, ...]:
        """Return the images of a shard, class by class."""
        first = self.shards[shard]
        return tuple(
            ImageId(label, f"n{label:08d}", n)
            for label in range(first, min(first + SHARD_CLASSES, self.classes))
            for n in range(IPC)
        )

    def images(self, shard: int) -> ImageRows:
        """Return a shard."""
        names, side = self.names(shard), self.config.data.side
        rng = np.random.default_rng(shard)
        return ImageRows(names, rng.integers(0, 256, (len(names), 3, side, side), np.uint8))

    def labels(self, shard: int, view: int, features: int) -> LabelRows:
        """Return one view of the labels of a shard."""
        names, relabel, rng = self.names(shard), self.config.relabel, np.random.default_rng(view)
        side = self.config.data.side
        drawn = sample_label_view(0, names, view, relabel, side=side)
        return LabelRows(
            scheme="features",
            teacher="",
            images=names,
            views=(view,),
            boxes=drawn.view.boxes[None],
            flips=drawn.view.flips[None],
            mix_kind=relabel.mix.kind,
            partners=drawn.mix.partners[None],
            lam=drawn.mix.lam[None],
            mix_boxes=drawn.mix.boxes[None],
            colours=drawn.mix.colours[None],
            values=rng.integers(0, 256, (1, len(names), features), np.uint8),
            affine=Affine(
                np.full(features, 0.01, np.float32), np.zeros(features, np.float32), BITS
            ),
        )


def memory() -> dict[str, int]:
    """Return the resident memory of this process at its peak, and its proportional memory now."""
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    share = re.search(r"^Pss:\s+(\d+)", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    assert peak is not None
    assert share is not None
    return {"peak": 1024 * int(peak[1]), "share": 1024 * int(share[1])}


def report(**facts: int) -> None:
    """Print facts and the memory, and wait for a line."""
    print(json.dumps(facts | memory()), flush=True)
    sys.stdin.readline()


def train(stand_in: Set) -> None:
    """Take a few steps on a set that is held once on this machine."""
    config = stand_in.config
    digests = [f"{number:064x}" for number in stand_in.shards]
    size = stand_in.classes * IPC * 3 * config.data.side**2
    images = shared_images(digests, stand_in.images, size=size)
    assert int(images.pixels.max()) == 255  # reads every page
    report(pixels=images.pixels.nbytes)
    teacher = untrained_teacher(config)
    features = teacher.spec.features
    readers = [
        lambda view, n=number: stand_in.labels(n, view, features)
        for number in range(len(stand_in.shards))
    ]

    def progress(done: int, _total: int) -> None:
        if done == STEPS:
            raise Enough

    test = Labelled(stand_in.images(0).pixels, images.labels[: len(stand_in.names(0))])
    task = StudentTask(config, config.posttrain.students[0], 0, "distilled")
    soft, runtime = SoftLabels(lambda: teacher, readers), TrainingRuntime(progress=progress)
    try:
        train_on_shards(task, images, soft, test, runtime=runtime)
    except Enough:
        report(pixels=images.pixels.nbytes)


def main(arguments: Sequence[str]) -> None:
    """Train on a set of so many classes, with the settings that follow."""
    torch.set_num_threads(1)
    keep_freed_memory()
    classes, preset, *settings = arguments
    train(Set(load_run(preset, settings), int(classes)))


if __name__ == "__main__":
    main(sys.argv[1:])
