"""Reader of a dataset whose splits have different formats, such as ImageNet's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distill_core.data.readers.compression import Sink
from distill_core.data.readers.passed_over import PassedOver
from distill_core.data.readers.record import (
    Address,
    FileReader,
    ListedRecord,
    Loaded,
    Part,
    Reader,
    ReadsArchives,
    ReadsFiles,
    Record,
    SamplesLabels,
    Split,
    Unpacks,
    classes_of,
)
from distill_core.data.readers.split_classes import check_names

PARQUET = ".parquet"


class TwoFormats:
    """Reads each split with its own reader; classes are compared by name.

    Args:
        train: reader of the training split.
        test: reader of the test split, for which that is the training split as well.
    """

    def __init__(self, train: Reader, test: Reader) -> None:
        self._readers = {"train": train, "test": test}
        self.sink: Sink | None = None  # see `record.Unpacks`

    def classes(self, split: Split = "train") -> tuple[str, ...]:
        """Return the classes of a split.

        Raises:
            DataError: the training split lacks a class of the other one.
        """
        names = self._readers[split].classes(split)
        check_names(names, self._readers["train"].classes("train"), f"data.{split}")
        return names

    def parts(self, split: Split) -> Sequence[Part]:
        """Return the parts of a split."""
        return self._readers[split].parts(split)

    def notices(self, split: Split) -> list[str]:
        """Return sentences about files of a split that are passed over."""
        return self._readers[split].notices(split)

    def records(self, part: Part, classes: Sequence[str]) -> Iterator[Record]:
        """Yield every image of a part."""
        reader = self._readers[part.split]
        if isinstance(reader, Unpacks):
            reader.sink = self.sink
        return reader.records(part, classes)

    def classes_of(self, part: Part, names: Sequence[str]) -> tuple[str, ...]:
        """Return the classes that the records of a part depend on, beside those that it names."""
        return classes_of(self._readers[part.split], part, names)

    def listed(self, part: Part, classes: Sequence[str]) -> Sequence[ListedRecord] | None:
        """Return what is known of the images of a part that are files of their own."""
        reader = self._readers[part.split]
        return reader.listed(part, classes) if isinstance(reader, FileReader) else None

    def is_current(self, part: Part) -> bool:
        """Return whether the files of a part are those that were planned."""
        reader = self._readers[part.split]
        return not isinstance(reader, ReadsFiles) or reader.is_current(part)

    def load(self, listed: Sequence[ListedRecord]) -> Loaded:
        """Read some images together; all formats with files of their own read them alike."""
        readers = self._readers.values()
        return next(r for r in readers if isinstance(r, FileReader)).load(listed)

    def sample_labels(self, split: Split) -> Sequence[int | None]:
        """Return the labels of some records, none where they are names of folders."""
        reader = self._readers[split]
        return reader.sample_labels(split) if isinstance(reader, SamplesLabels) else ()

    def passed_over(self, split: Split) -> PassedOver:
        """Return what was passed over so far in the archives of a split."""
        reader = self._readers[split]
        return reader.passed_over(split) if isinstance(reader, ReadsArchives) else PassedOver()

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Return images by address: rows of Parquet files by the reader of these, others by bytes.

        Which split an address belongs to does not matter: all other formats fetch alike.
        """
        in_parquet = [address.uri.endswith(PARQUET) for address in addresses]
        images = [b""] * len(addresses)
        for is_parquet in {*in_parquet}:
            places = [n for n, found in enumerate(in_parquet) if found == is_parquet]
            reader = self._reader_of(is_parquet)
            chosen = reader.fetch([addresses[place] for place in places])
            for place, data in zip(places, chosen, strict=True):
                images[place] = data
        return images

    def _reader_of(self, is_parquet: bool) -> Reader:
        from distill_core.data.readers.parquet import ParquetReader

        readers = self._readers.values()
        return next(r for r in readers if isinstance(r, ParquetReader) == is_parquet)
