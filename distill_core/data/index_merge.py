"""The index of a dataset from the shards of its parts, with one block of classes in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from distill_core.config.data import DataConfig
from distill_core.config.split_rule import parse_rule
from distill_core.data.archives import STAGE
from distill_core.data.checks import check_classes, check_kept, check_split, untested_classes
from distill_core.data.index import DatasetIndex, build_index, number_classes
from distill_core.data.index_commit import commit_index
from distill_core.data.index_files import SPLITS, open_index
from distill_core.data.index_table import SCHEMA
from distill_core.data.parts.kept_blocks import keep_blocks
from distill_core.data.parts.rows import PlannedPart, SplitRows, read_split
from distill_core.data.readers.passed_over import PassedOver
from distill_core.data.readers.record import Split
from distill_core.data.splits.divide_index import divide_split
from distill_core.data.splits.rules import count_notice
from distill_core.errors import DataError
from distill_core.progress import Notice, ignore_notice
from distill_core.sharding import ClassEntry
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store


def merge(
    config: DataConfig,
    store: Store,
    names: Sequence[str],
    parts: Sequence[PlannedPart],
    *,
    known: Sequence[ClassEntry] = (),
    notice: Notice = ignore_notice,
) -> DatasetIndex:
    """Return the committed index of a dataset whose parts are all finished.

    Args:
        config: of the dataset.
        store: that has the shards; the index is written to it.
        names: the classes, in the order of the reader; a rule may leave some of them out.
        parts: of all splits.
        known: every class of the version before by id; their ids are kept.
        notice: called with sentences about what was passed over in archives, and about classes
            without test images.

    Raises:
        ConfigError: `data.keep` names a class that there is not.
        DataError: a class has no training images, the classes that a rule leaves differ from the
            configuration, or too many images are unreadable.
        ShardError: a shard is missing or damaged.
    """
    classes = number_classes(names, known)
    if config.format == "classes":
        return _without_images(config, store, classes)
    with tempfile.TemporaryDirectory(prefix="distill-index-") as folder:
        rows = {
            split: _read(store, parts, split, classes, notice, Path(folder)) for split in SPLITS
        }
        return _merged(config, store, names, rows, known=known, notice=notice)


def _merged(
    config: DataConfig,
    store: Store,
    names: Sequence[str],
    rows: dict[Split, SplitRows],
    *,
    known: Sequence[ClassEntry],
    notice: Notice,
) -> DatasetIndex:
    """Return the committed index of the rows of all parts; see `merge`."""
    classes = number_classes(names, known)
    if config.split is not None:
        divided = divide_split(rows["train"], parse_rule(config.split), names, known)
        if not divided.names:
            raise DataError(
                f"{config.path or config.format}: data.split={config.split} leaves out all "
                f"{len(names):,} classes, as they have too few images. Check that the dataset is "
                "complete, or use another rule."
            )
        names, classes, rows = divided.names, divided.classes, divided.rows
        check_classes(config, names, classes)
    by_name = {entry.wnid: entry for entry in classes}
    present = [by_name[name] for name in names]
    for split in SPLITS:
        check_split(config, split, rows[split].counts, present)
    for text in _sentences(config, rows, present):
        notice(text)
    train, test = (rows[split].table(len(classes)) for split in SPLITS)
    index = build_index(config.name, classes, train, test)
    commit_index(store, replace(index, verify=config.verify))
    return open_index(store, index.id)


def _without_images(
    config: DataConfig, store: Store, classes: Sequence[ClassEntry]
) -> DatasetIndex:
    """Commit the index of a list of classes; those that are not kept are holes."""
    kept = check_kept(config, classes)
    entries = tuple(replace(entry, removed=entry.wnid not in kept) for entry in classes)
    empty = SCHEMA.empty_table()
    index = build_index(config.name, entries, empty, empty)
    commit_index(store, index)
    return open_index(store, index.id)


def _read(
    store: Store,
    parts: Sequence[PlannedPart],
    split: Split,
    classes: Sequence[ClassEntry],
    notice: Notice,
    folder: Path,
) -> SplitRows:
    """Return the rows of a split, and report what was passed over while they were read.

    Args:
        store: that has the shards.
        parts: of all splits.
        split: to read.
        classes: every class by id.
        notice: called with sentences.
        folder: keeps the blocks of the split until the index is written.
    """
    passed_over, of_split = PassedOver(), [each for each in parts if each.part.split == split]
    rows = read_split(ShardStore(store, STAGE), of_split, classes, passed_over)
    for text in passed_over.sentences():
        notice(f"{split} split: {text}")
    return replace(rows, load=keep_blocks(rows.load, folder / split))


def _sentences(
    config: DataConfig, rows: dict[Split, SplitRows], present: Sequence[ClassEntry]
) -> list[str]:
    """Return what deserves attention in the number of images."""
    counts = rows["test"].counts
    texts = [untested_classes(config, counts, present)]
    if config.split is not None:
        train, rule = rows["train"].counts.total, parse_rule(config.split)
        texts.append(count_notice(rule, config.label_space, train, counts.total))
    return [text for text in texts if text]
