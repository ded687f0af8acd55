"""Checks of what ingestion found: the classes, and the rows of a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from distill_core.config.data import DataConfig
from distill_core.data.labels.words import find_words
from distill_core.data.parts.counts import SplitCounts
from distill_core.data.parts.summary import Reject
from distill_core.data.readers.record import Address, Split
from distill_core.errors import ConfigError, DataError
from distill_core.label_spaces.compare import check_names
from distill_core.sharding import ClassEntry

LISTED = 5  # classes that a notice names, at most


def check_classes(config: DataConfig, names: Sequence[str], classes: Sequence[ClassEntry]) -> None:
    """Check that the classes found are those that the configuration describes.

    Args:
        config: of the dataset.
        names: the classes that are present.
        classes: every class by id, holes included.

    Raises:
        ConfigError: they are to be compared with a class list that is not installed.
        DataError: there is no class, two have the same name, the number of ids differs from
            `data.num_classes`, or they are not those of `data.label_space`.
    """
    where = config.path or config.format
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"{where}: two classes are named {twice[0]!r}, expected unique names. Rename one."
        )
    if not names:
        raise DataError(
            f"{where}: found no classes, expected {config.num_classes or 'some'}. Check the path."
        )
    if config.label_space is not None:
        check_names([entry.wnid for entry in classes], config.label_space, where=where)
    if config.num_classes and len(classes) != config.num_classes:
        holes = len(classes) - len(names)
        before = f" and {holes} removed earlier, whose ids stay reserved" if holes else ""
        raise DataError(
            f"{where}: found {len(names)} classes{before}, but data.num_classes is "
            f"{config.num_classes}. Correct the dataset or data.num_classes; 0 counts them."
        )


def check_kept(config: DataConfig, classes: Sequence[ClassEntry]) -> frozenset[str]:
    """Return the names of the classes that are distilled: those of `data.keep`, or all.

    Args:
        config: of the dataset.
        classes: every class by id.

    Raises:
        ConfigError: one is not a class of the dataset.
    """
    names = frozenset(entry.wnid for entry in classes)
    if unknown := [name for name in config.keep if name not in names]:
        raise ConfigError(
            f"data.keep: {unknown[0]!r} is no class of {config.label_space or config.name}. "
            "Use the names of its classes, such as WordNet ids."
        )
    return frozenset(config.keep) or names


def check_split(
    config: DataConfig, split: Split, counts: SplitCounts, classes: Sequence[ClassEntry]
) -> None:
    """Check that a split has few enough bad images and, for training, images of every class.

    Args:
        config: of the dataset.
        split: the split to check.
        counts: of its rows.
        classes: the classes that are present.

    Raises:
        DataError: names the first bad image or the first empty class, or the split has another
            number of files than `data.images` states.
    """
    where = f"{config.path or config.format}: {split} split"
    stated = None if config.images is None else config.images[split == "test"]
    if stated not in (None, counts.total):
        raise DataError(
            f"{where}: found {counts.total:,} files, but data.images states {stated:,}. Complete "
            "the dataset, or correct data.images."
        )
    if counts.rejected > config.max_bad_fraction * counts.total:
        raise DataError(
            f"{where}: {counts.rejected} of {counts.total} files cannot be used, more than "
            f"data.max_bad_fraction = {config.max_bad_fraction} allows. The first is "
            f"{_described(counts.first)} Repair or remove them, or raise the limit."
        )
    limit = config.max_bad_per_class
    spoilt = [] if limit is None else [entry for entry in classes if counts.bad[entry.id] > limit]
    if spoilt:
        raise DataError(
            f"{where}: {counts.bad[spoilt[0].id]} files of class "
            f"{_titles(config, classes, spoilt[:1])[0]} cannot be used (one of "
            f"{len(spoilt)} such classes), more than data.max_bad_per_class = {limit} allows. "
            f"The first is {_described(counts.first_of(spoilt[0].id))} Repair or "
            "remove them, or raise the limit."
        )
    missing = counts.without_images(classes)
    if missing and (split == "train" or len(missing) == len(classes)):
        raise DataError(
            f"{where}: no readable image of class {_titles(config, classes, missing[:1])[0]} "
            f"(one of {len(missing)} such classes out of {len(classes)}). Add images, or remove "
            "the class and lower data.num_classes."
        )


def untested_classes(config: DataConfig, counts: SplitCounts, classes: Sequence[ClassEntry]) -> str:
    """Return a sentence about the classes that the test split lacks; empty if it has all.

    Args:
        config: of the dataset.
        counts: of the rows of the test split.
        classes: the classes that are present.
    """
    missing = counts.without_images(classes)
    if not missing:
        return ""
    first = ", ".join(_titles(config, classes, missing[:LISTED]))
    more = f" and {len(missing) - LISTED:,} more" if len(missing) > LISTED else ""
    return (
        f"test split: no readable image of {len(missing):,} of {len(classes):,} classes: "
        f"{first}{more}. Accuracies are measured on the other classes only."
    )


def _titles(
    config: DataConfig, classes: Sequence[ClassEntry], some: Sequence[ClassEntry]
) -> list[str]:
    """Return some of the classes for a message, with their readable names where they have any."""
    words = find_words(config, [entry.wnid for entry in classes])
    return [repr(words.title(entry.wnid)) for entry in some]


def _described(reject: Reject) -> str:
    return f"{Address(reject.uri, reject.offset, 0).text}: {reject.reason}"
