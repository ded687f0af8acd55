"""What a reader gives: records; and what it must be able to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Split = Literal["train", "test"]
Address = tuple[str, int]  # uri and offset, as in the index


@dataclass(frozen=True, slots=True)
class Record:
    """One image as it is stored, not decoded."""

    label: int  # -1 where the file gives none
    uri: str  # of its file, relative to the dataset's folder
    offset: int  # row in a Parquet file, else 0
    name: str  # what it is called within its class: it orders the index, and enters fingerprints
    data: bytes
    problem: str = ""  # why decoding it is not worth a try


class Reader(Protocol):
    """How one format is read; made from a `DataConfig`, and it decodes nothing."""

    def classes(self) -> tuple[str, ...]:
        """Return the class names; a class's place is its id."""

    def count(self, split: Split) -> int:
        """Return how many records a split has."""

    def records(self, split: Split, classes: Sequence[str]) -> Iterator[Record]:
        """Yield every image of a split, in any order."""

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Return images by address; quickest where neighbours are asked for together."""
