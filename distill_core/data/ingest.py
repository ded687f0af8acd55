"""Ingestion: every image of a dataset is read, hashed and decoded before any of them is used.

A dataset is planned into parts. Each part becomes a shard under a key over what it reads: the
listed files by uri, size and version, and the settings that decide its rows. A shard that exists is
not read again. The index is merged from the shards of all parts.

`ingest` does all of it in one process; the stage of the same name distributes the parts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from distill_core.config.data import DataConfig
from distill_core.config.split_rule import SplitRule, parse_rule
from distill_core.data.archives import STAGE, ArchiveWriter
from distill_core.data.checks import check_classes
from distill_core.data.index import DatasetIndex, number_classes
from distill_core.data.index_files import SPLITS
from distill_core.data.index_merge import merge
from distill_core.data.parts.read import PartRows, read_part
from distill_core.data.parts.rows import PlannedPart
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.record import Part, Reader, Split, classes_of
from distill_core.progress import Notice, Progress, ignore_notice, silent
from distill_core.sharding import ClassEntry
from distill_core.storage.digest import sha256
from distill_core.storage.markers import ShardFacts
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store

# Increased when the rows of a part change on purpose.
VERSION = 1


def part_key(data: DataConfig, part: Part, classes: Sequence[str]) -> str:
    """Return the key of a part's shard: what it reads, and the settings that decide its rows.

    Unlike all other keys it contains the address of the dataset: two datasets may have files of the
    same names, sizes and times.

    Args:
        data: of the dataset.
        part: with the stamp of all files that it reads.
        classes: by label, where labels are numbers.
    """
    settings = data.model_dump(mode="json", include={"format", "path", "side", "load", "resize"})
    if part.split == "test":
        settings["format"] = data.test_format or data.format
    columns = data.model_dump(include={"image_column", "label_column"})
    settings |= {name: column for name, column in columns.items() if column is not None}
    parts = {"version": VERSION, "data": settings, "part": part.reads, "classes": classes}
    if data.verify != "full":
        parts["verify"] = data.verify
    return sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode())[:32]


@dataclass(frozen=True)
class IngestPlan:
    """The parts of a dataset, from its listings and descriptions alone.

    Args:
        config: of the dataset.
        previous: index of the version before; its class ids are kept, see `number_classes`.
    """

    config: DataConfig
    previous: DatasetIndex | None = None

    @cached_property
    def reader(self) -> Reader:
        """Return the reader of the dataset."""
        return open_reader(self.config)

    @cached_property
    def rule(self) -> SplitRule | None:
        """Return the rule that divides the dataset; None: it has a test split."""
        return None if self.config.split is None else parse_rule(self.config.split)

    @cached_property
    def splits(self) -> tuple[Split, ...]:
        """Return the splits whose images are read; a rule divides those of the first."""
        if self.config.format == "classes":
            return ()
        return SPLITS if self.rule is None else SPLITS[:1]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the classes that are present, in the order of the reader.

        A rule may leave some of them out, which only their images show; see `merge`.

        Raises:
            DataError: a split is missing, or the class count differs from the configuration.
        """
        names = tuple(self.reader.classes())
        if self.rule is None or not self.rule.drops_classes:
            check_classes(self.config, names, number_classes(names, self.known))
        if self.rule is None:
            self.reader.classes("test")  # a missing split ends this before any image is read
        return names

    @property
    def known(self) -> tuple[ClassEntry, ...]:
        """Return every class of the version before by id, holes included; none without one."""
        return () if self.previous is None else self.previous.classes

    @cached_property
    def parts(self) -> tuple[PlannedPart, ...]:
        """Return the parts of all splits with their keys."""
        names = self.names
        return tuple(
            PlannedPart(part, part_key(self.config, part, classes), classes)
            for split in self.splits
            for part in self.reader.parts(split)
            for classes in [classes_of(self.reader, part, names)]
        )

    def notices(self) -> list[str]:
        """Return sentences about what is passed over, as far as listings show it."""
        return [
            f"{split} split: {text}" for split in self.splits for text in self.reader.notices(split)
        ]


def ingest(
    config: DataConfig,
    store: Store,
    previous: DatasetIndex | None = None,
    *,
    progress: Progress = silent,
    notice: Notice = ignore_notice,
) -> DatasetIndex:
    """Read, hash and decode-check every image, then commit the index; idempotent.

    Args:
        config: of the dataset.
        store: where the shards and the index are kept.
        previous: index of the version before; its class ids are kept, and images whose files have
            not changed since are not read again.
        progress: called with (images read, images in total).
        notice: called with sentences about what is passed over, before the images are read, and
            about members of archives and classes without test images, after that.

    Raises:
        ConfigError: the dataset's address is wrong.
        DataError: a class has no training images, the class count differs from the configuration,
            an image has a label of no class, or too many images are unreadable.
    """
    plan = IngestPlan(config, previous)
    parts = plan.parts
    for text in plan.notices():
        notice(text)
    done, total = 0, sum(max(0, each.part.count) for each in parts)
    for each in parts:
        commit_part(plan, store, each)
        done += max(0, each.part.count)
        progress(done, total)
    return merge(config, store, plan.names, parts, known=plan.known, notice=notice)


def commit_part(plan: IngestPlan, store: Store, planned: PlannedPart) -> None:
    """Write the shard of a part, unless it exists."""
    shard_store, since = ShardStore(store, STAGE), time.perf_counter()
    if shard_store.marker(planned.key) is not None:
        return
    rows = read_part(
        plan.config,
        planned.part,
        planned.classes,
        previous=plan.previous,
        archive=ArchiveWriter(shard_store, planned.key, planned.part.name),
    )
    seconds = time.perf_counter() - since
    shard_store.commit(
        planned.key,
        shard=planned.part.name,
        files=rows.files(),
        facts=ShardFacts(**facts_of(rows), seconds=seconds, device="cpu"),
    )


def facts_of(rows: PartRows) -> dict[str, Any]:
    """Return what the marker of a part records; see `ShardFacts`."""
    return {
        "rows": rows.table.num_rows,
        "classes": len(rows.summary.classes),
        "summary": {"read": rows.read, "rejected": len(rows.summary.rejects)},
    }
