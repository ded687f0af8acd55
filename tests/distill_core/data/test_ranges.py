"""Merged ranges give the bytes of each range, in few requests of bounded size."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from distill_core.data.files.ranges import Range, divided, merged

FILES = {name: bytes((7 * n + len(name)) % 251 for n in range(4000)) for name in ("a", "bb", "ccc")}


@st.composite
def ranges_of_files(draw: st.DrawFn) -> list[Range]:
    """Return ranges within the files: overlapping, repeated, empty, in any order."""
    found = []
    for _ in range(draw(st.integers(0, 30))):
        first = draw(st.integers(0, 3999))
        size = draw(st.integers(0, min(600, 4000 - first)))
        found.append((draw(st.sampled_from(sorted(FILES))), first, size))
    return found


@given(ranges=ranges_of_files(), gap=st.integers(0, 500), most=st.integers(1, 2000))
def test_every_range_has_its_bytes_from_spans_that_are_bounded(
    ranges: list[Range], gap: int, most: int
) -> None:
    spans = merged(ranges, gap=gap, most=most)
    assert sorted(place for span in spans for place in span.places) == list(range(len(ranges)))
    for span in spans:
        longest = max(ranges[place][2] for place in span.places)
        assert span.size <= max(most, longest)
        needed = sum(ranges[place][2] for place in span.places)
        assert span.size <= needed + gap * (len(span.places) - 1)
    contents = [FILES[s.path][s.first : s.first + s.size] for s in spans]
    wanted = [FILES[path][first : first + size] for path, first, size in ranges]
    assert divided(ranges, spans, contents) == wanted


def test_the_images_of_a_class_in_an_archive_are_one_request() -> None:
    images = [("n01.tar", 512 + 1536 * number, 900) for number in range(46)]
    others = [("n02.tar", 512, 900)]
    spans = merged([*reversed(images), *others])
    assert [(span.path, len(span.places)) for span in spans] == [("n01.tar", 46), ("n02.tar", 1)]
    assert spans[0].range == ("n01.tar", 512, 1536 * 45 + 900)


def test_images_far_apart_stay_apart() -> None:
    far = [("pack", 0, 10), ("pack", 10**6, 10)]
    assert [span.range for span in merged(far)] == far
