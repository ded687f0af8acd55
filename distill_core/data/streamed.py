"""Images that are read as they are used, so that memory does not grow with their number.

Axes: n images, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Of the images in memory at once. A class of ImageNet-1K at 224 pixels is read whole: files in
# which classes are mixed would be read again for every part.
HELD_BYTES = 256 << 20


class StreamedImages:
    """Images by position; slices of them, asked for in order, are each read once.

    Args:
        rows: (n,) rows of the images.
        read: (m,) rows to (m, 3, S, S) uint8.
        side: S.
        batch: images of a slice; whole slices are read, up to `HELD_BYTES`.
    """

    def __init__(
        self, rows: np.ndarray, read: Callable[[np.ndarray], np.ndarray], *, side: int, batch: int
    ) -> None:
        self._rows, self._read = rows, read
        self._count = max(1, HELD_BYTES // (3 * side**2 * batch)) * batch
        self._first, self._held = 0, np.zeros((0, 3, side, side), np.uint8)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, part: slice) -> np.ndarray:
        """Return adjacent images, (m, 3, S, S) uint8."""
        start, stop, _ = part.indices(len(self))
        if not self._first <= start <= stop <= self._first + len(self._held):
            self._held = self._held[:0].copy()  # frees what was read before
            self._held = self._read(self._rows[start : max(stop, start + self._count)])
            self._first = start
        return self._held[start - self._first : stop - self._first]


Images = np.ndarray | StreamedImages  # (n, 3, S, S) uint8
