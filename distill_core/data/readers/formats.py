"""The table of dataset formats, by their name in the config."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from distill_core.config.data import DataConfig
from distill_core.data.readers.class_list import ClassListReader
from distill_core.data.readers.digits import DigitsReader
from distill_core.data.readers.imagefolder import ImageFolderReader
from distill_core.data.readers.parquet import ParquetReader
from distill_core.data.readers.patterns import PatternsReader
from distill_core.data.readers.record import Reader
from distill_core.data.readers.tars import TarsReader

READERS: Mapping[str, Callable[[DataConfig], Reader]] = {
    "digits": DigitsReader,
    "imagefolder": ImageFolderReader,
    "parquet": ParquetReader,
    "patterns": PatternsReader,
    "classes": ClassListReader,
    "tars": TarsReader,
}


def open_reader(config: DataConfig) -> Reader:
    """Return the reader of a dataset.

    Raises:
        ConfigError: it has no path, or no installed file system can open it.
        DataError: its path does not exist.
    """
    return READERS[config.format](config)
