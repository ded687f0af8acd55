"""The number of workers of a stage: a maximum, a range, or as many as there are shards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

AUTO = "auto"
MOST = 100_000  # far above any use: a mistyped number is refused at once
AUTO_MOST = 256  # workers that `auto` stands for; each costs its driver a place to watch
_RANGE = re.compile(r"([1-9][0-9]*):([1-9][0-9]*)")


@dataclass(frozen=True)
class WorkerRange:
    """How many workers a stage starts with, and how many it takes."""

    most: int | None  # None: as many as the cluster has room for
    # Of them, those that must have a place before a stage starts. None: nodes are not expected to
    # join, so a cluster without room for any is refused at once.
    least: int | None = None


def parse_workers(value: object) -> int | str | None:
    """Return a number, ``MIN:MAX``, ``auto`` or None in its one spelling.

    Raises:
        ValueError: it is none of these.
    """
    if value is None or value == "":
        return None
    if value == AUTO:
        return AUTO
    text = str(value).strip()
    if text.isascii() and text.isdecimal() and not isinstance(value, bool):
        number = int(text)
        if 1 <= number <= MOST:
            return number
    if (match := _RANGE.fullmatch(text)) and int(match[1]) <= int(match[2]) <= MOST:
        return text
    raise ValueError(f"expected a number from 1 to {MOST:,}, a range MIN:MAX, or {AUTO}")


def range_of(value: int | str | None) -> WorkerRange:
    """Return the meaning of what `parse_workers` accepts."""
    if value == AUTO:
        return WorkerRange(AUTO_MOST, 1)
    if isinstance(value, str):
        least, _, most = value.partition(":")
        return WorkerRange(int(most), int(least))
    return WorkerRange(value)


# Prefect's server checks forms by the schema alone.
_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": MOST},
        {"type": "string", "pattern": f"^({AUTO}|[1-9][0-9]*(:[1-9][0-9]*)?)?$"},
        {"type": "null"},
    ],
    "description": f"At most so many workers, a range MIN:MAX where nodes may join, or {AUTO}.",
}
WorkerCount = Annotated[int | str | None, BeforeValidator(parse_workers), WithJsonSchema(_SCHEMA)]
