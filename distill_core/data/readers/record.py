"""The interface of readers, and the records that they yield."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from distill_core.data.files.local import ListedFile
from distill_core.data.readers.compression import ARCHIVES, Sink
from distill_core.data.readers.names import printable
from distill_core.data.readers.passed_over import PassedOver

Split = Literal["train", "test"]


class Address(NamedTuple):
    """The place of one image, as in the index."""

    uri: str  # of its file, relative to the dataset's folder
    offset: int  # first byte in an archive; row in a Parquet file; 0 in other formats
    size: int  # bytes of the image

    @property
    def text(self) -> str:
        """Return the place as in messages."""
        uri = printable(self.uri)
        if uri.endswith(ARCHIVES):
            return f"{uri} at byte {self.offset}"
        in_rows = self.offset or uri.endswith(".parquet")
        return f"{uri} row {self.offset}" if in_rows else uri


class Record(NamedTuple):
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

    @property
    def reads(self) -> dict[str, Any]:
        """Return what the part reads, whatever it is called and how much that is."""
        return {k: v for k, v in asdict(self).items() if k not in ("name", "count", "bytes")}


class ListedRecord(NamedTuple):
    """An image that is a file of its own, before it is read."""

    file: ListedFile  # its path, unlike the uri, may be no UTF-8
    uri: str
    wnid: str  # name of its class; empty: of none
    name: str  # within its class
    problem: str = ""  # reason why it cannot be used, whatever it holds, as a sentence


class Loaded(NamedTuple):
    """Images that were read together."""

    records: list[Record]  # their labels are -1, since the listing has their classes
    current: bool  # whether each file is the one that was listed; False also where it is unknown


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
            classes: of the training split, or those of `classes_of`; a label is a position in it.
        """

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Return images by address; fastest if neighbours are requested together."""


@runtime_checkable
class SamplesLabels(Protocol):
    """A reader of a format in which labels are numbers, not names of folders."""

    def sample_labels(self, split: Split) -> Sequence[int | None]:
        """Return the labels of some records as they are stored, without any image."""


@runtime_checkable
class ReadsFiles(Protocol):
    """A reader of files, which may change after their parts were planned."""

    def is_current(self, part: Part) -> bool:
        """Return whether all that a part reads is what its stamp is of.

        A reader that has listed the files of the part already compares that listing.

        Raises:
            DataError: a file is gone.
        """


@runtime_checkable
class FileReader(Reader, ReadsFiles, Protocol):
    """Reader of a format with one file per image, whose files can be told apart unread."""

    def listed(self, part: Part, classes: Sequence[str]) -> Sequence[ListedRecord] | None:
        """Return what is known of each image of a part from its listing.

        Args:
            part: one of `parts`.
            classes: see `classes_of`.

        Returns:
            None: the images of this part are no files of their own; see `records`.
        """

    def load(self, listed: Sequence[ListedRecord]) -> Loaded:
        """Read some images together."""


@runtime_checkable
class ReadsArchives(Protocol):
    """A reader of archives, whose members it sees only while it reads them."""

    def passed_over(self, split: Split) -> PassedOver:
        """Return what was passed over so far in the archives of a split."""


@runtime_checkable
class Unpacks(Protocol):
    """A reader of archives that may be compressed."""

    sink: Sink | None  # receives a compressed archive while the records of its part are read


@runtime_checkable
class NamesClasses(Protocol):
    """A reader of a format in which names of folders or files are classes, not labels."""

    def classes_of(self, part: Part, names: Sequence[str]) -> tuple[str, ...]:
        """Return the classes that the records of a part depend on, beside those that it names."""


def classes_of(reader: Reader, part: Part, names: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that the records of a part depend on, beside those that it names.

    The key of a part contains them, so that another class changes no key where names are classes.

    Args:
        reader: of the dataset.
        part: one of its parts.
        names: the classes of the training split.
    """
    return reader.classes_of(part, names) if isinstance(reader, NamesClasses) else tuple(names)
