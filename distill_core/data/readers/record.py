"""The interface of readers, and the records that they yield."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

Split = Literal["train", "test"]


class Address(NamedTuple):
    """The place of one image, as in the index."""

    uri: str  # of its file, relative to the dataset's folder
    offset: int  # first byte in an archive; row in a Parquet file; 0 in other formats
    size: int  # bytes of the image


@dataclass(frozen=True, slots=True)
class Record:
    """One image as it is stored, not decoded."""

    label: int  # -1 if the file has none
    uri: str  # of its file, relative to the dataset's folder
    offset: int  # as in `Address`
    name: str  # within its class; it orders the index and enters fingerprints
    data: bytes
    problem: str = ""  # reason why it cannot be decoded, as a sentence


class Reader(Protocol):
    """Reader of one format, made from a `DataConfig`; it does not decode images."""

    def classes(self, split: Split = "train") -> tuple[str, ...]:
        """Return the class names of a split, from its names or its metadata, without any image.

        A class's position among those of the training split is its id.

        Raises:
            DataError: there is no such split, or it cannot belong to the other one.
        """

    def count(self, split: Split) -> int:
        """Return the number of records in a split."""

    def notices(self, split: Split) -> list[str]:
        """Return sentences about files of a split that are passed over; mostly none."""

    def records(self, split: Split, classes: Sequence[str]) -> Iterator[Record]:
        """Yield every image of a split, in any order."""

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Return images by address; fastest if neighbours are requested together."""


@runtime_checkable
class SamplesLabels(Protocol):
    """A reader of a format in which labels are numbers, not names of folders."""

    def sample_labels(self, split: Split) -> Sequence[int | None]:
        """Return the labels of some records as they are stored, without any image."""
