"""Selection of the real images a round starts from: right for the teacher, wrong for the student.

One pass over the real images of each class of a block. The whole order of a class is stored, not
only as many images as a run needs: more images per class extend the set.

Source: arXiv:2405.09150 (CUDD), curriculum evaluation, and its published code. Differs from the
code: an image is hard if it is not put into its own class, where the code compares with class 0;
whole classes are classified, where the code stops as soon as it has enough; images are classified
as S x S pixels, as recover will see them.

Axes: n real images of a class, m of them that are classified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from distill_core.models.teacher import FrozenTeacher
from distill_core.progress import Progress, silent
from distill_core.seeds import generator, philox_key
from distill_core.selection.class_images import ClassImages, forward_batches, normalised
from distill_core.storage.parquet import open_parquet, write_row_groups

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
    used: np.ndarray  # int32; those that earlier rounds used
    counts: Mapping[str, int]  # of `order`, by GROUPS

    def start_of(self, number: int) -> int:
        """Return the place of image `number` of this round; none is used twice before all are."""
        return int(self.order[number % len(self.order)])

    def used_after(self, count: int) -> np.ndarray:
        """Return the places used once this round has made `count` images."""
        return np.concatenate([self.used, self.order[:count]]).astype(np.int32)


@dataclass(frozen=True)
class SelectionSetup:
    """The networks that classify real images, and the draw of the images they classify.

    Args:
        teacher: frozen.
        student: of the rounds before, frozen; None in the first round.
        limit: images of a class that are classified at most; None: all.
        seed: the run's seed.
    """

    teacher: FrozenTeacher
    student: FrozenTeacher | None
    limit: int | None
    seed: int


def select_block(
    classes: Sequence[tuple[int, str]],
    images: ClassImages,
    setup: SelectionSetup,
    *,
    used: Mapping[str, np.ndarray] | None = None,
    progress: Progress = silent,
) -> dict[str, ClassSelection]:
    """Order the real images of each class of a block that no earlier round used.

    Args:
        classes: (label, wnid) of each class.
        images: the real images.
        setup: networks and draw.
        used: by wnid, places that earlier rounds used; None in the first round.
        progress: called with (classes done, classes in total).

    Returns:
        By wnid, in the order of `classes`.

    Raises:
        DataError: a class has no image.
    """
    selected = {}
    for number, (label, wnid) in enumerate(classes, start=1):
        before = (used or {}).get(wnid, np.zeros(0, np.int32))
        selected[wnid] = _select(label, wnid, images, setup, before)
        progress(number, len(classes))
    return selected


def _select(
    label: int, wnid: str, images: ClassImages, setup: SelectionSetup, used: np.ndarray
) -> ClassSelection:
    rows = images.rows(label, wnid)
    places = candidates_of(len(rows), wnid, used=used, limit=setup.limit, seed=setup.seed)
    networks = [each for each in (setup.teacher, setup.student) if each is not None]
    right = [
        [gets_right(network, part, label) for network in networks]
        for part in forward_batches(images.streamed(rows[places]))
    ]
    teacher, *student = (np.concatenate(parts) for parts in zip(*right, strict=True))
    return select_class(places, teacher, student[0] if student else None, used=used)


def candidates_of(
    count: int, wnid: str, *, used: np.ndarray, limit: int | None, seed: int
) -> np.ndarray:
    """Draw the images of a class that are classified, (m,) int32.

    Args:
        count: readable training images n of the class, at least one.
        wnid: its name; with the seed it decides the order.
        used: places that earlier rounds used; once none is left, all are candidates again.
        limit: candidates at most; None: no limit.
        seed: the run's seed.
    """
    order = generator(philox_key(seed, "select", f"candidates/{wnid}")).permutation(count)
    fresh = order[~np.isin(order, used)]
    return (fresh if len(fresh) else order)[:limit].astype(np.int32)


@torch.no_grad()
def gets_right(network: FrozenTeacher, pixels: np.ndarray, label: int) -> np.ndarray:
    """Return whether a network puts each image into its class, (m,) bool.

    Args:
        network: a teacher or a student, frozen.
        pixels: (m, 3, S, S) uint8, images of one class.
        label: the class.
    """
    predicted = [
        network(normalised(network, part)).logits.argmax(dim=1) for part in forward_batches(pixels)
    ]
    right: np.ndarray = (torch.cat(predicted) == label).cpu().numpy()
    return right


def select_class(
    candidates: np.ndarray, teacher: np.ndarray, student: np.ndarray | None, *, used: np.ndarray
) -> ClassSelection:
    """Order the candidates of a class.

    First those that the teacher gets right and the student wrong, then those that both get wrong,
    then the others. Without a student, all count as wrong for it.

    Args:
        candidates: (m,) places; those of equal rank keep this order.
        teacher: (m,) bool, whether it gets each right.
        student: (m,) bool, likewise; None in the first round.
        used: places that earlier rounds used.
    """
    easy = np.zeros_like(teacher) if student is None else student
    group = np.where(easy, 2, np.where(teacher, 0, 1))
    order = candidates[np.argsort(group, kind="stable")]
    counts = {name: int((group == number).sum()) for number, name in enumerate(GROUPS)}
    return ClassSelection(order.astype(np.int32), used.astype(np.int32), counts)


def encode_selection(selected: Mapping[str, ClassSelection]) -> bytes:
    """Return the file of a block, a row per class; the same selection gives the same bytes."""
    rows = [
        {"wnid": wnid, "order": of_class.order, "used": of_class.used, **of_class.counts}
        for wnid, of_class in selected.items()
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
    """Return how many candidates of a block are in each group."""
    return {name: sum(of_class.counts[name] for of_class in selected) for name in GROUPS}
