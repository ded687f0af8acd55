"""Checks of a sample of the labels of a split, before any image is read."""

from __future__ import annotations

from collections.abc import Sequence

from distill_core.config.data import DataConfig
from distill_core.data.readers.record import Split
from distill_core.errors import DataError

UNKNOWN = -1  # the label of images whose class is not published


def check_labels(
    config: DataConfig, split: Split, labels: Sequence[int | None], *, classes: int
) -> None:
    """Check that labels are numbers of classes; single images may have none.

    Args:
        config: of the dataset.
        split: the split to check.
        labels: some of its labels as they are stored; None where there is none.
        classes: number of classes of the split.

    Raises:
        DataError: no image has a label, as in the hub's test splits, or a label is of no class.
    """
    name = config.train if split == "train" else config.test
    where = f"{config.path or config.format}: {split} split {name!r}"
    known = [label for label in labels if label is not None]
    if labels and not known:
        raise DataError(
            f"{where}: none of {len(labels):,} sampled images has a label. Use a split with labels."
        )
    if known and set(known) == {UNKNOWN}:
        raise DataError(
            f"{where}: all of {len(known):,} sampled labels are -1, as in the test splits of the "
            f"Hugging Face hub whose labels are not published. Set data.{split} to a split with "
            "labels, which is often `validation`."
        )
    if stray := [label for label in known if not 0 <= label < classes]:
        raise DataError(
            f"{where}: label {stray[0]} is not one of the {classes} classes, 0 to {classes - 1} "
            f"({len(stray):,} of {len(known):,} sampled labels). Correct the labels, or the class "
            "names and data.num_classes."
        )
