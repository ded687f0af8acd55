"""Merging of neighbouring ranges of files, so that one request fetches many images.

Images of a class follow one another in an archive or a pack, with a header between them. A request
to a bucket takes as long as the transfer of about a megabyte, so the bytes between them cost less.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

GAP = 64 * 2**10  # bytes between two ranges that are read for nothing, at most
MOST = 8 * 2**20  # bytes of a merged range, unless a single one has more

Range = tuple[str, int, int]  # path, first byte, number of bytes


@dataclass(frozen=True)
class Span:
    """A range of a file that covers some of the requested ranges."""

    path: str
    first: int
    size: int
    places: tuple[int, ...]  # of the covered ranges among those requested

    @property
    def range(self) -> Range:
        """Return the bytes to request."""
        return self.path, self.first, self.size


def merged(ranges: Sequence[Range], *, gap: int = GAP, most: int = MOST) -> list[Span]:
    """Return spans that cover ranges; each range is in one of them.

    Args:
        ranges: to read, in any order.
        gap: bytes that may lie between two ranges of a span.
        most: bytes of a span of several ranges.
    """
    order = sorted(range(len(ranges)), key=lambda place: ranges[place][:2])
    return list(_spans(ranges, order, gap, most))


def divided(
    ranges: Sequence[Range], spans: Iterable[Span], contents: Iterable[bytes]
) -> list[bytes]:
    """Return the bytes of every range from those of the spans.

    Args:
        ranges: that were merged.
        spans: of them.
        contents: of each span, whole.
    """
    found = [b""] * len(ranges)
    for span, data in zip(spans, contents, strict=True):
        for place in span.places:
            _, first, size = ranges[place]
            found[place] = data[first - span.first : first - span.first + size]
    return found


def _spans(ranges: Sequence[Range], order: Sequence[int], gap: int, most: int) -> Iterator[Span]:
    """Yield the spans of ranges, whose places are given in the order of the files."""
    places: list[int] = []
    path, first, end = "", 0, 0
    for place in order:
        name, start, size = ranges[place]
        together = max(end, start + size) - first <= most
        if places and name == path and start - end <= gap and together:
            places.append(place)
            end = max(end, start + size)
            continue
        if places:
            yield Span(path, first, end - first, tuple(places))
        places, path, first, end = [place], name, start, start + size
    if places:
        yield Span(path, first, end - first, tuple(places))
