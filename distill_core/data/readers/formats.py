"""The table of dataset formats, by their name in the config."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from distill_core.config.data import DataConfig
from distill_core.data.readers.cifar import CifarReader
from distill_core.data.readers.class_list import ClassListReader
from distill_core.data.readers.digits import DigitsReader
from distill_core.data.readers.flat import FlatReader
from distill_core.data.readers.imagefolder import ImageFolderReader
from distill_core.data.readers.parquet import ParquetReader
from distill_core.data.readers.patterns import PatternsReader
from distill_core.data.readers.record import Reader
from distill_core.data.readers.tars import TarsReader
from distill_core.data.readers.tiny_imagenet import TinyImageNetReader
from distill_core.data.readers.two_formats import TwoFormats
from distill_core.data.readers.webdataset import WebDatasetReader
from distill_core.errors import ConfigError

READERS: Mapping[str, Callable[[DataConfig], Reader]] = {
    "cifar": CifarReader,
    "digits": DigitsReader,
    "flat": FlatReader,
    "imagefolder": ImageFolderReader,
    "parquet": ParquetReader,
    "patterns": PatternsReader,
    "classes": ClassListReader,
    "tars": TarsReader,
    "tiny": TinyImageNetReader,
    "webdataset": WebDatasetReader,
}


def open_reader(config: DataConfig) -> Reader:
    """Return the reader of a dataset.

    Raises:
        ConfigError: its format is not known yet, it has no path, or no installed file system can
            open it.
        DataError: its path does not exist.
    """
    if "auto" in (config.format, config.test_format):
        raise ConfigError(
            "data.format=auto: has no reader of its own. `detection.resolve.resolve_data` returns "
            "the config with the format of the dataset; data.test_format cannot be auto."
        )
    if config.test_format in (None, config.format):
        return READERS[config.format](config)
    # The reader of the test split knows no other split, whose format it could not read.
    test = config.model_copy(update={"train": config.test})
    return TwoFormats(READERS[config.format](config), READERS[config.test_format](test))
