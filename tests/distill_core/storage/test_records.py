"""Records with a digest of themselves: every change of their bytes shows."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, TypeAdapter

from distill_core.errors import DataError, ShardError
from distill_core.storage.records import (
    BLANK,
    NAME,
    check_seal,
    parse_json,
    seal,
    seal_json,
    seal_page,
)


@dataclass(frozen=True)
class Record:
    """A record of a test."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    name: str
    count: int
    record_sha256: str = ""


KIND = TypeAdapter(Record)
DATA = seal_json({"name": "ünï", "count": 3})


def parsed(data: bytes) -> Record:
    """Parse the record of this test."""
    return parse_json(KIND, data, where="a/b", what="a record", remedy="Delete it.")


def test_a_sealed_record_is_read_back() -> None:
    record = parsed(DATA)
    assert (record.name, record.count, len(record.record_sha256)) == ("ünï", 3, 64)


@pytest.mark.parametrize("position", range(len(DATA)))
def test_every_flip_of_every_byte_is_refused_in_one_line(position: int) -> None:
    for mask in range(1, 256):
        data = bytearray(DATA)
        data[position] ^= mask
        with pytest.raises(DataError, match=r"^a/b: [^\n]+ Delete it\.$"):
            parsed(bytes(data))


@given(st.binary())
def test_other_bytes_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(DataError, match=r"^a/b: [^\n]+ Delete it\.$"):
        parsed(data)


def test_a_record_of_an_older_version_is_read() -> None:
    assert parsed(b'{"name": "x", "count": 1}') == Record("x", 1)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "x", "count": "1"}',
        '{"name": "x", "count": 1.5}',
        '{"name": "x", "count": 1, "more": 2}',
        '{"name": "x"}',
        "[" * 100_000,
        "9" * 5_000,
        "[]",
    ],
)
def test_wrong_types_are_refused_in_one_short_line(text: str) -> None:
    with pytest.raises(DataError) as error:
        parsed(text.encode())
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


def test_the_error_has_the_class_of_its_reader() -> None:
    with pytest.raises(ShardError):
        parse_json(KIND, b"", where="a", what="a record", remedy="", error=ShardError)


def test_pages_and_comments_are_sealed() -> None:
    page, comment = seal_page("<p>text</p>"), seal(f"a: 1\n# {NAME}: {BLANK}\n")
    for data in (page, comment):
        assert check_seal(data, where="x", remedy="")
        with pytest.raises(DataError, match="damaged or edited"):
            check_seal(b"b" + data[1:], where="x", remedy="")
    assert not check_seal(b"a: 1\n", where="x", remedy="")


def test_a_record_has_one_digest() -> None:
    with pytest.raises(ValueError, match="expected one"):
        seal(json.dumps({"name": "x"}))
    twice = DATA.replace(b'"count"', f'"{NAME}": "{BLANK}", "count"'.encode())
    with pytest.raises(DataError, match="damaged or edited"):
        parsed(twice)
