"""A dataset of one's own, from its address alone: the facts that its config depends on."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from distill_core.config.data import DataConfig
from distill_core.config.load import preset_names
from distill_core.config.recommended.facts import Facts, Pixels
from distill_core.config.recommended.sizes import View
from distill_core.data.checks import check_classes
from distill_core.data.detection.place import (
    PARQUET,
    locate_source,
    resolve_source,
    validated,
)
from distill_core.data.detection.sample import (
    Sample,
    count_classes,
    pixels_of,
    shapes_of,
    take_sample,
)
from distill_core.data.detection.survey import SPLITS
from distill_core.data.folders import locate
from distill_core.data.index import number_classes
from distill_core.data.readers.compression import ARCHIVES
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.record import Reader
from distill_core.errors import ConfigError, DataError
from distill_core.naming.addresses import data_address
from distill_core.naming.names import check_name

COUNTED = 200_000  # images up to which those of each class are counted
# Keys of `data` for the place of a dataset and for how it is read.
FOUND = ("path", "format", "test_format", "train", "test", "split", "class_list", "label_list")
GIVEN = ("image_column", "label_column", "label_space")
PLACEHOLDERS: Mapping[str, Any] = MappingProxyType(
    {"format": "auto", "num_classes": 0, "side": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}
)


@dataclass(frozen=True)
class Source:
    """A dataset that was found, and a sample of its images."""

    facts: Facts
    config: DataConfig  # side and normalisation are placeholders
    images: Sequence[bytes]  # of the sample, encoded
    notices: tuple[str, ...]  # sentences about what was found

    def pixels(self, view: View) -> Pixels:
        """Return mean and standard deviation of the sample.

        Raises:
            DataError: no image of it can be decoded.
        """
        load = "squish" if view.resize is None else "center_crop"
        shape = {"side": view.side, "resize": view.resize, "load": load}
        found = pixels_of(self.images, validated(self.config.model_dump() | shape))
        if found is None:
            raise _unreadable(self.config, len(self.images))
        return found


def find_source(address: str, given: Mapping[str, Any]) -> Source:
    """Return a dataset by its address.

    Args:
        address: a folder, an archive or a Parquet file, here or in a bucket.
        given: settings of the user by dotted key; those of `data` for how it is read count.

    Raises:
        ConfigError: the address or a setting cannot be used, or the dataset can be read in
            several ways.
        DataError: there is no dataset, or it cannot be distilled.
    """
    place = data_address(address, key="SOURCE")
    settings = dict(PLACEHOLDERS) | {"name": name_of(place)} | locate_source(place)
    for key in (*FOUND, *GIVEN):
        if f"data.{key}" in given:
            settings[key] = given[f"data.{key}"]
    config, notices = resolve_source(settings)
    reader = open_reader(config)
    classes = _checked_classes(config, reader)
    sample = take_sample(reader, classes)
    return Source(_facts(config, reader, sample, given), config, sample.images, tuple(notices))


def name_of_source(address: str) -> str:
    """Return the name of the dataset at an address, which may not exist.

    Raises:
        ConfigError: it cannot be an address.
    """
    return name_of(data_address(address, key="SOURCE"))


def name_of(address: str) -> str:
    """Return a name for a dataset, as configs allow it: that of its folder or file."""
    last = re.split(r"[/\\]", address.rstrip("/\\"))[-1]
    for ending in (*ARCHIVES, PARQUET):
        last = last.removesuffix(ending)
    plain = unicodedata.normalize("NFKD", last).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")[:80] or "images"
    with suppress(ConfigError):
        if name not in preset_names():
            return check_name("data", name)
    return f"{name}-images"


def _facts(config: DataConfig, reader: Reader, sample: Sample, given: Mapping[str, Any]) -> Facts:
    """Return the facts about a dataset."""
    shapes, classes = shapes_of(sample.images), reader.classes()
    if shapes is None:
        raise _unreadable(config, len(sample.images))
    few = sample.counted and sample.total <= COUNTED
    counts = count_classes(reader, classes) if few else None
    if counts is not None:
        _check_counts(config, counts)
    keys = [key for key in (*FOUND, *GIVEN) if key != "test" or config.split is None]
    return Facts(
        name=config.name,
        data={key: value for key in keys if (value := getattr(config, key)) is not None},
        classes=classes,
        images=sample.total,
        shapes=shapes,
        counted=sample.counted,
        smallest=None if counts is None else min(counts.values()),
        given=given,
    )


def _checked_classes(config: DataConfig, reader: Reader) -> tuple[str, ...]:
    """Return the classes of a dataset that can be distilled.

    Raises:
        DataError: there are fewer than two, or they are the splits of an archive.
    """
    classes = reader.classes()
    check_classes(config, classes, number_classes(classes, ()))
    if all(name.lower() in SPLITS for name in classes):
        raise DataError(
            f"{config.path}: the folders in {config.train} are {' and '.join(classes)}, which are "
            "splits, not classes. Unpack it, or make an archive of each split."
        )
    if len(classes) < 2:
        raise DataError(
            f"{config.path}: only one class, {classes[0]!r}; expected two or more, as a network "
            f"learns to tell classes apart. {_remedy(config, classes[0])}"
        )
    return classes


def _remedy(config: DataConfig, only: str) -> str:
    """Return what to do about the only class of a dataset, which may be a folder around others."""
    below = only if config.train == "." else f"{config.train}/{only}"
    if config.format == "imagefolder" and locate(config).folders(below):
        return f"If the folders in it are the classes, use {config.path}/{below}."
    return "Put the images of each class into a folder of its own."


def _check_counts(config: DataConfig, counts: Counter[str]) -> None:
    """Refuse classes without images, and classes of one image each, which cannot be divided.

    Raises:
        DataError: there are such.
    """
    if empty := [name for name, count in counts.items() if not count]:
        raise DataError(
            f"{config.path}: no image of class {empty[0]!r} (one of {len(empty)} such classes out "
            f"of {len(counts)}). Add images, or remove the folder."
        )
    if config.split is not None and max(counts.values()) == 1:
        raise DataError(
            f"{config.path}: one image of each class; expected two or more, one of which is to "
            "test on. Add images, or a folder of images to test on."
        )


def _unreadable(config: DataConfig, images: int) -> DataError:
    return DataError(
        f"{config.path}: none of {images} images that were tried can be opened. Check that the "
        "files are images."
    )
