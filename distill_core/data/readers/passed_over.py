"""Files of a dataset that are no images of it, counted for a notice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from distill_core.data.readers.names import printable

OTHER = "is ignored, because its name is not that of an image"
OUTSIDE = "is ignored, because it lies in no class folder"
NOT_FOLLOWED = "is not followed, because its folder is listed elsewhere"
REASONS = (OTHER, OUTSIDE, NOT_FOLLOWED)


class PassedOver:
    """What a listing holds beside the images of the classes, counted, with an example of each."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}  # by reason
        self._counts = Counter[str]()

    def add(self, reason: str, paths: Sequence[str]) -> None:
        """Count some paths that are passed over for a reason."""
        if paths:
            self._first.setdefault(reason, paths[0])
            self._counts[reason] += len(paths)

    def counts(self) -> dict[str, tuple[str, int]]:
        """Return the first path and the number of paths by reason."""
        return {reason: (path, self._counts[reason]) for reason, path in self._first.items()}

    def add_counts(self, counts: Mapping[str, tuple[str, int]]) -> None:
        """Add what `counts` has returned elsewhere."""
        for reason, (path, number) in counts.items():
            self._first.setdefault(reason, path)
            self._counts[reason] += number

    def sentences(self) -> list[str]:
        """Return a sentence for each reason, in the order of `REASONS`."""
        return [
            f"{printable(self._first[reason])} {reason}{_more(self._counts[reason] - 1)}."
            for reason in REASONS
            if reason in self._first
        ]


def _more(count: int) -> str:
    return f", and {count:,} more like it" if count else ""
