"""Contents that a dataset has several times: counted with 8 bytes of memory per image."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa

from distill_core.data.index_table import readable_rows

HEX_DIGITS = 16  # of a sha256, kept as one 64-bit number; a collision is improbable enough


class Contents:
    """The contents of the readable images of a split, 8 bytes each.

    Args:
        images: that will be added at most, if their number is known.
    """

    def __init__(self, images: int = 0) -> None:
        # What is not filled takes no memory.
        self._numbers, self._filled = np.empty(max(images, 2**16), np.uint64), 0

    def add(self, rows: pa.Table) -> None:
        """Add the readable rows of a table."""
        numbers = _numbers(readable_rows(rows))
        filled = self._filled + len(numbers)
        if len(self._numbers) < filled:
            larger = np.empty(2 * filled, np.uint64)
            larger[: self._filled] = self._numbers[: self._filled]
            self._numbers = larger
        self._numbers[self._filled : filled] = numbers
        self._filled = filled

    def sorted(self) -> np.ndarray:
        """Return all contents as sorted numbers, (n,) uint64; nothing can be added after that."""
        numbers = self._numbers[: self._filled]
        numbers.sort()
        return numbers


def count_duplicates(
    train: Contents, test: Contents, train_blocks: Callable[[], Iterable[pa.Table]]
) -> dict[str, int]:
    """Return the number of contents with several classes, and of those in both splits.

    Duplicates are kept; a large number indicates a mistake in the dataset.

    Args:
        train: contents of the training split.
        test: contents of the test split.
        train_blocks: yields the rows of the training split, if they are needed once more.
    """
    known = train.sorted()
    repeated = np.unique(known[1:][known[1:] == known[:-1]])
    several = _with_several_labels(train_blocks(), repeated) if len(repeated) else 0
    leaked = _is_in(np.unique(test.sorted()), known)
    return {"classes": several, "splits": int(leaked.sum())}


def _with_several_labels(blocks: Iterable[pa.Table], contents: np.ndarray) -> int:
    """Return how many of some contents, sorted and unique, have images of several classes."""
    lowest = np.full(len(contents), np.iinfo(np.int64).max)
    highest = np.full(len(contents), -1)
    for block in blocks:
        rows = readable_rows(block)
        numbers = _numbers(rows)
        found = _is_in(numbers, contents)
        places = np.searchsorted(contents, numbers[found])
        labels = rows["label"].to_numpy()[found].astype(np.int64)
        np.minimum.at(lowest, places, labels)
        np.maximum.at(highest, places, labels)
    return int((highest > lowest).sum())


def _numbers(rows: pa.Table) -> np.ndarray:
    """Return the content of each row as a number, (n,) uint64."""
    hexes = rows["sha256"].to_pylist()
    return np.fromiter((int(each[:HEX_DIGITS], 16) for each in hexes), np.uint64, len(hexes))


def _is_in(numbers: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return which numbers are among others, which are sorted."""
    if not len(known):
        return np.zeros(len(numbers), bool)
    places = np.searchsorted(known, numbers).clip(max=len(known) - 1)
    found: np.ndarray = known[places] == numbers
    return found
