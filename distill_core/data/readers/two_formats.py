"""Reader of a dataset whose splits have different formats, such as ImageNet's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distill_core.data.readers.record import Address, Part, Reader, Record, Split
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
        return self._readers[part.split].records(part, classes)

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
