"""Stored records that carry a digest of themselves, so that any change of their bytes shows.

The field ``record_sha256`` holds the sha256 of the whole record, computed with 64 zeros in its
place. In JSON it is a field; in YAML, HTML and Markdown it stands in a comment. Records of older
versions have no digest: they are read, and their readers check what they can.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from distill_core.errors import DataError, one_line, shown
from distill_core.storage.digest import sha256

T = TypeVar("T")

NAME = "record_sha256"
BLANK = "0" * 64  # in the place of the digest while it is computed
_SEAL = re.compile(rb"record_sha256\W{1,4}([0-9a-f]{64})")
_SHOWN = 60  # characters of a wrong value in a message


def seal(text: str) -> bytes:
    """Return a record with its digest in the place of its 64 zeros.

    Args:
        text: the record; it contains ``record_sha256`` followed by 64 zeros exactly once.
    """
    data = text.encode()
    if _SEAL.findall(data) != [BLANK.encode()]:
        raise ValueError(f"expected one {NAME} with 64 zeros in {len(data)} bytes")
    return _with_digest(data, sha256(data))


def seal_json(tree: Mapping[str, Any], *, sort_keys: bool = False) -> bytes:
    """Return a JSON object with its digest, indented."""
    return seal(json.dumps({**tree, NAME: BLANK}, indent=1, sort_keys=sort_keys))


def seal_page(text: str) -> bytes:
    """Return HTML or Markdown with its digest in a comment at the end."""
    return seal(f"{text.rstrip()}\n<!-- {NAME}: {BLANK} -->\n")


def check_seal(data: bytes, *, where: str, remedy: str, error: type[DataError] = DataError) -> bool:
    """Return whether a record has a digest.

    Args:
        data: the whole record.
        where: its address, for messages.
        remedy: a sentence that tells what to do about a damaged record.
        error: the class of the error.

    Raises:
        DataError: the record has a digest that does not match its bytes, or several.
    """
    if NAME.encode() not in data:
        return False
    found = _SEAL.findall(data)
    if len(found) != 1 or sha256(_with_digest(data, BLANK)) != found[0].decode():
        raise error(
            f"{where}: its {len(data)} bytes do not match the sha256 that it states, so it was "
            f"damaged or edited. {remedy}"
        )
    return True


def parse_json(
    kind: TypeAdapter[T],
    data: bytes,
    *,
    where: str,
    what: str,
    remedy: str,
    error: type[DataError] = DataError,
    sealed: bool = False,
) -> T:
    """Return a record of JSON, its digest and its types checked.

    Args:
        kind: of the record; an object with unknown fields is refused if it says so.
        data: the whole record.
        where: its address, for messages.
        what: what it should be, such as ``a marker``.
        remedy: a sentence that tells what to do about a damaged record.
        error: the class of the error.
        sealed: whether it must have a digest, since every writer of such a record gives it one.

    Raises:
        DataError: it is no such record, its digest does not match, or it lacks one that it needs.
    """
    try:
        record = kind.validate_json(data, strict=True)
    except ValidationError as problem:
        raise error(
            f"{where}: {len(data)} bytes are not {what} ({_first(problem)}). {remedy}"
        ) from None
    if not check_seal(data, where=where, remedy=remedy, error=error) and sealed:
        raise error(
            f"{where}: has no {NAME}, but its run was registered by a version that writes it, so "
            f"it was edited. {remedy}"
        )
    return record


def _with_digest(data: bytes, digest: str) -> bytes:
    return _SEAL.sub(lambda match: match[0][:-64] + digest.encode(), data)


def _first(problem: ValidationError) -> str:
    """Return the first problem in one line, without the whole value."""
    first = problem.errors(include_url=False, include_context=False)[0]
    path = ".".join(map(str, first["loc"]))
    value = "" if isinstance(first["input"], dict | list | bytes) else f" = {shown(first['input'])}"
    text = f"{path}{value[:_SHOWN]}: {first['msg']}" if path else first["msg"]
    return one_line(text)[: 4 * _SHOWN]
