"""The config of a dataset of which only the address is known: its format and both splits.

A test split is looked for under its usual names. Where there is none, a rule divides the training
split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from distill_core.config.data import DataConfig
from distill_core.config.explain import explain
from distill_core.data.detection.candidates import candidates, splits
from distill_core.data.detection.resolve import resolve_data
from distill_core.data.detection.survey import TEST, TRAIN, Tree, survey
from distill_core.data.folders import DatasetFolder, locate, open_place
from distill_core.data.labels.checks import check_labels
from distill_core.data.readers.compression import ARCHIVES, UNREADABLE
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.names import is_image
from distill_core.data.readers.parquet_files import split_name
from distill_core.data.readers.record import SamplesLabels
from distill_core.errors import ConfigError, DataError, MissingDataError

RULE = "fraction:0.2"  # of each class becomes the test split, where there is none
PARQUET = ".parquet"
EXPECTED = "a folder, a .tar or .parquet file, or a bucket prefix"


def locate_source(address: str) -> dict[str, Any]:
    """Return the settings of `data` that an address implies: its path and, of a file, the split.

    Args:
        address: in its one spelling.

    Raises:
        ConfigError: no installed file system can open it.
        DataError: there is nothing, or a file that is no archive.
    """
    if open_place(address, "SOURCE").is_folder(""):
        return {"path": address}
    folder, _, name = address.rpartition("/")
    if folder.endswith(":/"):  # a bucket
        raise _missing(address)
    beside = open_place(folder or "/", "SOURCE")
    if not beside.is_folder("") or name not in beside.files_in("").paths:
        raise _missing(address)
    if name.endswith((*ARCHIVES, *UNREADABLE, PARQUET)):
        return {"path": folder or "/", "train": split_name(name)}
    raise DataError(f"{address}: a file, expected {EXPECTED}. Correct the path.")


def resolve_source(settings: Mapping[str, Any]) -> tuple[DataConfig, list[str]]:
    """Return the config of a dataset, and sentences about what was found.

    Args:
        settings: of `data`, all that it needs but for those that are found.

    Raises:
        ConfigError: a setting is wrong, or the dataset can be read in several ways.
        DataError: it cannot be read.
    """
    config = validated(settings)
    if config.split is not None or config.format != "auto":
        return _resolved(config)
    root = locate(config)
    tree = survey(root, named=(config.train.strip("/"), config.test.strip("/")))
    if any(found.train.kind == "cifar" for found in candidates(tree, config.train, config.test)):
        return _resolved(config)
    names = [config.test] if "test" in settings else ["test", *TEST]
    tests = dict.fromkeys(name for name in names if splits(tree, [name.strip("/")]))
    if _is_whole(settings) or not (tests or "test" in settings):
        return _divided(config, root, tree)
    return _with_test(config, [*tests] or names)


def validated(settings: Mapping[str, Any]) -> DataConfig:
    """Return the config of a dataset.

    Raises:
        ConfigError: a setting is wrong.
    """
    try:
        return DataConfig.model_validate(dict(settings))
    except ValidationError as error:
        raise ConfigError(explain(error, "data", DataConfig)) from None


def _is_whole(settings: Mapping[str, Any]) -> bool:
    """Return whether a file that a person named is the whole dataset, not its training split."""
    train = str(settings.get("train", "train")).lower()
    return "test" not in settings and not any(name in train for name in TRAIN)


def _with_test(config: DataConfig, tests: Sequence[str]) -> tuple[DataConfig, list[str]]:
    """Return the config with the first test split that can be used."""
    errors: list[DataError | ConfigError] = []
    for name in tests:
        try:
            found = _resolved(config.model_copy(update={"test": name}))
            _check_labels(found[0])
        except (DataError, ConfigError) as error:
            errors.append(error)
        else:
            return found
    raise errors[0]


def _divided(config: DataConfig, root: DatasetFolder, tree: Tree) -> tuple[DataConfig, list[str]]:
    if not candidates(tree, config.train, None):
        raise _nothing(root, tree)
    return _resolved(config.model_copy(update={"split": RULE}))


def _resolved(config: DataConfig) -> tuple[DataConfig, list[str]]:
    notices: list[str] = []
    return resolve_data(config, notice=notices.append), notices


def _check_labels(config: DataConfig) -> None:
    """Check a sample of the labels of the test split, which the hub leaves out of some."""
    reader = open_reader(config)
    if isinstance(reader, SamplesLabels):
        labels = reader.sample_labels("test")
        check_labels(config, "test", labels, classes=config.num_classes)


def _nothing(root: DatasetFolder, tree: Tree) -> DataError:
    """Return the error about a folder without a dataset."""
    folders, files = tree.folders.get("", ()), tree.files.get("", ())
    if packed := [name for name in files if name.endswith(UNREADABLE)]:
        return DataError(
            f"{root.url}/{packed[0]}: compressed in a way that is not read here. Decompress it "
            "once, and use the resulting .tar file."
        )
    if images := sum(map(is_image, files)):
        return DataError(
            f"{root.url}: {images:,} images, but no folders of classes with images. Put the images "
            "of each class into a folder that is named after it."
        )
    there = ", ".join([*folders, *files][:8]) or "no files"
    return DataError(
        f"{root.url}: found no images; expected a folder of images for each class, or folders "
        f"train and test of such, or archives or Parquet files; there are {there}. Check the path."
    )


def _missing(address: str) -> MissingDataError:
    return MissingDataError(f"{address}: no such file or folder, expected {EXPECTED}.")
