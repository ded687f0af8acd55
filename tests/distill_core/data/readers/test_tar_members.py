"""Members of tar archives: regular files only, no damage passed over, nothing ever extracted."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distill_core.data.readers.tar_members import BLOCK, Member, members
from distill_core.errors import DataError
from tests.support.sources import tar_bytes

FILES = [("a.png", b"first"), ("sub/b.png", bytes(2000)), ("empty.png", b"")]


def found(data: bytes, **bounds: int) -> list[Member]:
    return list(members(io.BytesIO(data), "a.tar", **bounds))


def contents(data: bytes) -> list[tuple[str, bytes]]:
    """Return names and contents of the members of an archive without a problem."""
    return [(m.name, data[m.offset : m.offset + m.size]) for m in found(data) if not m.problem]


def special(kind: bytes, name: str = "a.png", link: str = "") -> bytes:
    """Return an archive with a member of some type and a regular file after it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        archive.addfile(member)
        member = tarfile.TarInfo("z.png")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"end"))
    return stream.getvalue()


def reheaded(data: bytes, change: Callable[[tarfile.TarInfo], None]) -> bytes:
    """Return an archive with another header of its first member."""
    header = tarfile.TarInfo.frombuf(data[:BLOCK], "utf-8", "surrogateescape")
    change(header)
    return header.tobuf(tarfile.GNU_FORMAT) + data[BLOCK:]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_are_found_where_they_lie(kind: int) -> None:
    assert contents(tar_bytes(FILES, format=kind)) == FILES


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["n" * 300 + ".png", "d" * 90 + "/" + "f" * 280, "später/ü.png"])
def test_long_names_and_umlauts_are_read(name: str, kind: int) -> None:
    assert contents(tar_bytes([(name, b"x"), *FILES], format=kind)) == [(name, b"x"), *FILES]


def test_a_range_of_a_file_is_an_archive_of_its_own() -> None:
    inner = tar_bytes(FILES)
    outer = tar_bytes([("one.tar", b"?"), ("two.tar", inner)])
    last = found(outer)[1]
    nested = found(outer, start=last.offset, end=last.offset + last.size)
    assert [(m.name, outer[m.offset : m.offset + m.size]) for m in nested] == FILES


def test_names_are_relative_and_hidden_files_are_ignored() -> None:
    names = ["./a.png", "b//c.png", "._a.png", "sub/._b.png", ".cache/d.png"]
    assert [m.name for m in found(tar_bytes((n, b"x") for n in names))] == ["a.png", "b/c.png"]


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a named pipe"),
        (b"~", "type is unknown"),
    ],
)
def test_what_is_no_regular_file_has_a_problem(kind: bytes, problem: str) -> None:
    first, second = found(special(kind, link="../../etc/passwd"))
    assert problem in first.problem
    assert second == Member("z.png", second.offset, 3)


def test_a_folder_is_no_member() -> None:
    assert [m.name for m in found(special(tarfile.DIRTYPE, "folder"))] == ["z.png"]


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "sub/../../a.png"])
def test_a_name_outside_the_archive_is_a_problem(name: str) -> None:
    (member,) = found(tar_bytes([(name, b"x")]))
    assert member.problem == "its name leads out of the archive."


def test_a_second_member_of_a_name_is_a_problem() -> None:
    first, second = found(tar_bytes([("a.png", b"1"), ("a.png", b"2")]))
    assert (first.problem, second.problem) == ("", "a member of the same name comes before it.")


def test_a_name_that_is_not_utf8_is_a_problem() -> None:
    (member,) = found(tar_bytes([("\udcff.png", b"1")], format=tarfile.GNU_FORMAT))
    assert member == Member("\\udcff.png", BLOCK, 1, "its name is not UTF-8.")


def test_sparse_files_are_a_problem_and_do_not_hide_the_next(tmp_path: Path) -> None:
    def to_sparse(header: tarfile.TarInfo) -> None:
        header.type = tarfile.GNUTYPE_SPARSE

    sparse, second = found(reheaded(tar_bytes(FILES[:2]), to_sparse))
    assert "sparse" in sparse.problem
    assert second.name == "sub/b.png"
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.png")
        member.pax_headers = {"GNU.sparse.major": "1"}
        archive.addfile(member)
    assert "sparse" in found(stream.getvalue())[0].problem


def test_an_archive_cut_anywhere_is_refused_with_the_byte() -> None:
    data = tar_bytes(FILES, format=tarfile.PAX_FORMAT)
    end = len(data.rstrip(b"\0"))
    last = -(-max(m.offset + m.size for m in found(data)) // BLOCK) * BLOCK
    assert end <= last
    for kept in range(0, last + 1, 37):
        with pytest.raises(DataError, match=rf"a\.tar: (truncated at byte {kept}|empty)"):
            found(data[:kept])


def test_a_damaged_header_is_never_the_end_of_an_archive() -> None:
    data = tar_bytes([(f"{n}.png", bytes(700)) for n in range(20)])
    offsets = [m.offset - BLOCK for m in found(data)]
    for offset in offsets:
        damaged = bytearray(data)
        damaged[offset + 3] ^= 8
        with pytest.raises(DataError, match=rf"damaged at byte {offset}|not a tar archive"):
            found(bytes(damaged))


def test_joined_archives_are_refused() -> None:
    data = tar_bytes(FILES)
    with pytest.raises(DataError, match="more data behind it"):
        found(data[: len(data.rstrip(b"\0")) + 2048] + data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "empty, not a tar"),
        (b"\x1f\x8b" + bytes(600), "compressed with gzip.*gunzip"),
        (b"<html>" * 200, "not a tar archive"),
    ],
)
def test_what_is_no_archive_is_named(data: bytes, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        found(data)


@pytest.mark.parametrize("size", [2**40, 2**63, -5])
def test_a_member_of_any_stated_size_is_never_read_into_memory(size: int) -> None:
    def resize(header: tarfile.TarInfo) -> None:
        header.size = size

    with pytest.raises(DataError, match=r"truncated|damaged"):
        found(reheaded(tar_bytes(FILES), resize))


def test_a_size_of_thousands_of_digits_is_an_error_in_one_line() -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("a.png")
        member.pax_headers = {"size": "9" * 5000}
        tar.addfile(member)
    with pytest.raises(DataError, match="truncated at byte"):
        found(archive.getvalue())


def test_a_long_name_of_any_stated_size_is_never_read_into_memory() -> None:
    def resize(header: tarfile.TarInfo) -> None:
        header.size = 2**40

    with pytest.raises(DataError, match=r"a name of \d+ bytes"):
        found(reheaded(tar_bytes([("n" * 300, b"x")], format=tarfile.GNU_FORMAT), resize))


def test_random_damage_is_an_error_or_leaves_bounded_members() -> None:
    data, rng, refused = tar_bytes(FILES, format=tarfile.PAX_FORMAT), np.random.default_rng(0), 0
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] ^= 1 << rng.integers(8)
        try:
            assert all(m.offset + m.size <= len(data) for m in found(bytes(damaged)))
        except DataError:
            refused += 1
    assert refused > 20
