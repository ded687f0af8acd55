"""The batch plan: the images of every batch, and the batches of every class shard.

The statistics terms pool over a batch, so the composition of batches is part of the method. Shards
are a pure function of (class list, IPC, composition, batch size), without torch or I/O.

A shard does not depend on the total IPC or on other classes: a run of IPC 50 contains the shards of
its IPC 10 run, and classes added later form blocks of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Composition = Literal["one_per_class", "class_major", "one_class"]
MIN_SHARD_CLASSES = 100  # a class shard has at least this many classes, or all of them

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ClassEntry:
    """One class of a dataset. Ids are append-only: a removed class leaves a hole."""

    id: int  # the label, an index into the teacher's logits
    wnid: str  # WordNet id or class name; unique
    generation: int = 0  # version of the dataset that added it; blocks do not mix generations
    removed: bool = False


@dataclass(frozen=True, slots=True)
class ImageId:
    """One synthetic image."""

    label: int
    wnid: str
    ipc_index: int


Batch = tuple[ImageId, ...]
Group = tuple[tuple[int, str], ...]  # (label, wnid) of some classes, ascending
Grid = tuple[
    int, tuple[int, ...]
]  # a batch: (number of a group, ipc_indices of each of its classes)


@dataclass(frozen=True, slots=True)
class ClassShard:
    """A block of consecutive classes times an IPC range: the unit of work, retry and storage.

    A batch is a group of classes times some indices. Drivers plan, hash and send only these;
    workers expand them to images.
    """

    number: int  # position in the plan, as in `--shards`; not part of any key
    name: str  # e.g. c00100-00199_i000-009
    groups: tuple[Group, ...]
    grids: tuple[Grid, ...]

    @property
    def batches(self) -> tuple[Batch, ...]:
        """Return the images of every batch, class by class."""
        return batches_of(self.groups, self.grids)

    @property
    def images(self) -> tuple[ImageId, ...]:
        """Return every image in storage order: by class, then by ipc_index."""
        flat = (image for batch in self.batches for image in batch)
        return tuple(sorted(flat, key=lambda image: (image.label, image.ipc_index)))

    @property
    def num_images(self) -> int:
        """Return the number of images in the shard."""
        return sum(len(self.groups[group]) * len(indices) for group, indices in self.grids)

    @property
    def classes(self) -> Group:
        """Return its classes, ascending by id."""
        return tuple(sorted(entry for group in self.groups for entry in group))

    @property
    def labels(self) -> tuple[int, ...]:
        """Return the distinct class ids, ascending."""
        return tuple(label for label, _ in self.classes)


def batches_of(
    groups: Sequence[Sequence[tuple[int, str]]], grids: Sequence[tuple[int, Sequence[int]]]
) -> tuple[Batch, ...]:
    """Return the images of every batch, class by class; see `ClassShard`."""
    return tuple(
        tuple(ImageId(label, wnid, index) for label, wnid in groups[group] for index in indices)
        for group, indices in grids
    )


def class_list_hash(classes: Sequence[ClassEntry]) -> str:
    """Return the identity of a label space: 16 hex digits over every (id, wnid), holes included."""
    text = json.dumps([[c.id, c.wnid] for c in sorted(classes, key=lambda c: c.id)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plan_shards(
    classes: Sequence[ClassEntry],
    *,
    ipc: int,
    ipc_range: int,
    batch_size: int,
    composition: Composition,
    shard_classes: int | None = None,
) -> tuple[ClassShard, ...]:
    """Divide classes x IPC into class shards, IPC range by IPC range.

    Args:
        classes: the class list; removed classes are skipped but keep their position in a block.
        ipc: images per class in total.
        ipc_range: images per class in one shard; ranges start at its multiples.
        batch_size: images per batch B; batches may be shorter, never longer.
        composition: `one_per_class`: up to B consecutive classes, one image each;
            `class_major`: whole classes, all their images of the range adjacent;
            `one_class`: images of one class.
        shard_classes: classes per shard, a multiple of a batch's width; None: see `shard_width`.
    """
    width = shard_classes or shard_width(
        len(classes), batch_classes=batch_classes(composition, batch_size, ipc_range)
    )
    blocks = [block for block in _blocks(classes, width) if any(not c.removed for c in block)]
    ranges = list(_chunks(range(ipc), ipc_range))
    return tuple(
        _shard(number, blocks[number % len(blocks)], indices, batch_size, composition)
        for number, indices in enumerate(r for r in ranges for _ in blocks)
    )


def shard_width(num_classes: int, *, batch_classes: int) -> int:
    """Return the classes per shard: the smallest multiple of a batch's width that is >= 100."""
    width = -(-MIN_SHARD_CLASSES // batch_classes) * batch_classes
    return min(width, num_classes)


def plan_size(
    num_classes: int,
    *,
    ipc: int,
    ipc_range: int,
    batch_size: int,
    composition: Composition,
    shard_classes: int | None = None,
) -> tuple[int, int]:
    """Return the number of class shards and of batches that `plan_shards` makes of whole classes.

    It takes no time and no memory, whatever the numbers are.
    """
    span = batch_classes(composition, batch_size, ipc_range)
    width = shard_classes or shard_width(num_classes, batch_classes=span)
    blocks, last = divmod(num_classes, width)
    ranges, rest = divmod(ipc, ipc_range)
    batches = 0
    for indices, times in ((ipc_range, ranges), (rest, 1)):
        if indices:
            span = batch_classes(composition, batch_size, indices)
            groups = blocks * -(-width // span) + -(-last // span)
            cuts = indices if composition == "one_per_class" else -(-indices // batch_size)
            batches += times * groups * cuts
    return (blocks + (last > 0)) * (ranges + (rest > 0)), batches


def batch_classes(composition: Composition, batch_size: int, ipc_range: int) -> int:
    """Return the number of classes in a full batch, independent of a short last range."""
    match composition:
        case "one_per_class":
            return batch_size
        case "class_major":
            return max(1, batch_size // ipc_range)
        case "one_class":
            return 1


def _blocks(classes: Sequence[ClassEntry], width: int) -> Iterator[Sequence[ClassEntry]]:
    ordered = sorted(classes, key=lambda c: c.id)
    for generation in sorted({c.generation for c in ordered}):
        yield from _chunks([c for c in ordered if c.generation == generation], width)


def _shard(
    number: int,
    block: Sequence[ClassEntry],
    indices: Sequence[int],
    batch_size: int,
    composition: Composition,
) -> ClassShard:
    name = f"c{block[0].id:05d}-{block[-1].id:05d}_i{indices[0]:03d}-{indices[-1]:03d}"
    parts = _chunks(block, batch_classes(composition, batch_size, len(indices)))
    present = [tuple((c.id, c.wnid) for c in part if not c.removed) for part in parts]
    groups = tuple(group for group in present if group)
    numbers = range(len(groups))
    grids: tuple[Grid, ...]
    if composition == "one_per_class":
        grids = tuple((number, (index,)) for index in indices for number in numbers)
    else:
        cuts = [tuple(cut) for cut in _chunks(indices, batch_size)]
        grids = tuple((number, cut) for number in numbers for cut in cuts)
    return ClassShard(number, name, groups, grids)


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
