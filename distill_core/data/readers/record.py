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

    @property
    def text(self) -> str:
        """Return the place as in messages."""
        if self.uri.endswith(".tar"):
            return f"{self.uri} at byte {self.offset}"
        in_rows = self.offset or self.uri.endswith(".parquet")
        return f"{self.uri} row {self.offset}" if in_rows else self.uri


@dataclass(frozen=True, slots=True)
class Record:
    """One image as it is stored, not decoded."""

    label: int  # -1 if the file has none
    uri: str  # of its file, relative to the dataset's folder
    offset: int  # as in `Address`
    name: str  # within its class; it orders the index and enters fingerprints
    data: bytes
    problem: str = ""  # reason why it cannot be decoded, as a sentence


@dataclass(frozen=True)
class Part:
    """Some records of a split that are read together: the unit that ingestion plans and repeats."""

    split: Split
    name: str  # unique in the split; orders the parts
    files: tuple[str, ...] = ()  # uris of files, or of folders of one class; none: generated
    first: int = 0  # record of `files` in their order
    last: int = -1  # record after the last one; -1: to the end
    count: int = -1  # records; -1: unknown before they are read
    bytes: int = -1  # of the records or, in a container, of its share of the files; -1: unknown
    stamp: str = ""  # hash over uri, size and version of everything that it reads


class Reader(Protocol):
    """Reader of one format, made from a `DataConfig`; it does not decode images."""

    def classes(self, split: Split = "train") -> tuple[str, ...]:
        """Return the class names of a split, from its names or its metadata, without any image.

        A class's position among those of the training split is its id.

        Raises:
            DataError: there is no such split, or it cannot belong to the other one.
        """

    def parts(self, split: Split) -> Sequence[Part]:
        """Return the parts of a split, bounded in records and bytes; together all its records.

        It lists names and reads descriptions, never an image.
        """

    def notices(self, split: Split) -> list[str]:
        """Return sentences about files of a split that are passed over; mostly none."""

    def records(self, part: Part, classes: Sequence[str]) -> Iterator[Record]:
        """Yield every image of a part, in the same order each time.

        Args:
            part: one of `parts`.
            classes: of the training split; a label is a position in it.
        """

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Return images by address; fastest if neighbours are requested together."""


@runtime_checkable
class SamplesLabels(Protocol):
    """A reader of a format in which labels are numbers, not names of folders."""

    def sample_labels(self, split: Split) -> Sequence[int | None]:
        """Return the labels of some records as they are stored, without any image."""
