"""A set of file contents, small enough for millions of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

HEX_DIGITS = 16  # of a sha256, as one 64-bit number: that two contents share it is no concern here


class Contents:
    """Which contents are known, in 8 bytes each.

    Args:
        digests: their sha256 in hex.
    """

    def __init__(self, digests: Iterable[str] = ()) -> None:
        numbers = np.fromiter((int(digest[:HEX_DIGITS], 16) for digest in digests), np.uint64)
        self._sorted = np.sort(numbers)

    def __contains__(self, digest: str) -> bool:
        number = np.uint64(int(digest[:HEX_DIGITS], 16))
        place = int(np.searchsorted(self._sorted, number))
        return place < len(self._sorted) and bool(self._sorted[place] == number)
