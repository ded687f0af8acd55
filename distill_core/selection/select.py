"""Which real images a round starts from: those that a teacher knows and a student does not.

One pass over the real images of each class of a block. The whole order of a class is stored, not
only as many images as a run asks for: more images per class extend the set.

Source: arXiv:2405.09150 (CUDD), curriculum evaluation, and its published code. Differs from the
code: what is hard is judged against the image's own class, where the code compares with class 0;
whole classes are judged, where the code stops as soon as it has enough; images are judged as S x S
pixels, as recover will see them.

Axes: n real images of a class, m of them that are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from distill_core.errors import DataError
from distill_core.models.teacher import FrozenTeacher
from distill_core.seeds import generator, philox_key
from distill_core.storage.parquet import open_parquet, write_row_groups
from distill_core.transforms.pixel_space import PixelSpace

FORWARD_BATCH = 100  # images per forward pass; part of the numerics, as in `describe`
GROUPS = ("wanted", "hard", "other")  # in the order in which they are taken
SCHEMA = pa.schema(
    [
        pa.field("wnid", pa.string(), nullable=False),
        pa.field("order", pa.list_(pa.int32()), nullable=False),
        pa.field("used", pa.list_(pa.int32()), nullable=False),
        *(pa.field(name, pa.int32(), nullable=False) for name in GROUPS),
    ]
)


@dataclass(frozen=True)
class ClassSelection:
    """The real images of one class, by place among its readable training images."""

    order: np.ndarray  # (m,) int32; those to start from, the first one first; none is used yet
    used: np.ndarray  # int32; those that earlier rounds took
    counts: Mapping[str, int]  # of `order`, by GROUPS

    def start_of(self, number: int) -> int:
        """Return what image `number` of this round starts from; none twice until all are used."""
        return int(self.order[number % len(self.order)])

    def used_after(self, count: int) -> np.ndarray:
        """Return what is used once this round has made `count` images."""
        return np.concatenate([self.used, self.order[:count]]).astype(np.int32)


def candidates_of(
    count: int, wnid: str, *, used: np.ndarray, limit: int | None, seed: int
) -> np.ndarray:
    """Return which images of a class are looked at, at random, (m,) int32.

    Args:
        count: readable training images n of the class.
        wnid: its name; with the seed it decides the order.
        used: places of those that earlier rounds took; all are looked at again once none is left.
        limit: look at no more than so many; None: at all.
        seed: the run's seed.

    Raises:
        DataError: the class has no image.
    """
    if count == 0:
        raise DataError(f"class {wnid}: no real image to start from. Use init: gaussian.")
    order = generator(philox_key(seed, "select", f"candidates/{wnid}")).permutation(count)
    fresh = order[~np.isin(order, used)]
    return (fresh if len(fresh) else order)[:limit].astype(np.int32)


@torch.no_grad()
def gets_right(
    network: FrozenTeacher, pixels: np.ndarray, label: int, *, device: str | torch.device
) -> np.ndarray:
    """Return which images of a class a network puts into that class, (m,) bool.

    Args:
        network: a teacher or a student, frozen, on `device`.
        pixels: (m, 3, S, S) uint8.
        label: the class.
        device: where to compute.
    """
    space = PixelSpace.of(network.spec.mean, network.spec.std, network.head.weight)
    said = [
        network(space.normalise(part.to(device))).logits.argmax(dim=1)
        for part in torch.split(torch.from_numpy(pixels), FORWARD_BATCH)
    ]
    right: np.ndarray = (torch.cat(said) == label).cpu().numpy()
    return right


def select_class(
    candidates: np.ndarray, teacher: np.ndarray, student: np.ndarray | None, *, used: np.ndarray
) -> ClassSelection:
    """Order the candidates of a class.

    First those that the teacher gets right and the student wrong, then those that both get wrong,
    then the others. Before there is a student, nothing is known to it.

    Args:
        candidates: (m,) places, in the order in which equals are taken.
        teacher: (m,) bool, what it gets right.
        student: (m,) bool, likewise; None in the first round.
        used: places that earlier rounds took.
    """
    known = np.zeros_like(teacher) if student is None else student
    group = np.where(known, 2, np.where(teacher, 0, 1))
    order = candidates[np.argsort(group, kind="stable")]
    counts = {name: int((group == number).sum()) for number, name in enumerate(GROUPS)}
    return ClassSelection(order.astype(np.int32), used.astype(np.int32), counts)


def encode_selection(selected: Mapping[str, ClassSelection]) -> bytes:
    """Return the file of a block, a row per class; the same selection gives the same bytes."""
    rows = [
        {"wnid": wnid, "order": one.order, "used": one.used, **one.counts}
        for wnid, one in selected.items()
    ]
    return write_row_groups(SCHEMA, [pa.Table.from_pylist(rows, schema=SCHEMA)], compression="zstd")


def decode_selection(data: bytes, *, where: str = "selection") -> dict[str, ClassSelection]:
    """Read the file of a block back, by wnid.

    Raises:
        DataError: it is not one.
    """
    with open_parquet(data, where=where, columns=SCHEMA.names) as file:
        return {
            row["wnid"]: ClassSelection(
                np.array(row["order"], np.int32),
                np.array(row["used"], np.int32),
                {name: row[name] for name in GROUPS},
            )
            for row in file.read().to_pylist()
        }


def totals(selected: Sequence[ClassSelection]) -> dict[str, int]:
    """Return how many candidates of a block are of each group."""
    return {name: sum(one.counts[name] for one in selected) for name in GROUPS}
