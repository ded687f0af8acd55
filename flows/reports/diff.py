"""Differences between a version of a series and the one before: classes, shards, accuracy, bytes.

They are read from manifests, markers and indexes alone, and written beside the version as
``diff.json`` for programs and ``diff.md`` for people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from typing import Any

from distill_core.config.schema import RunConfig
from distill_core.data.index import DatasetIndex
from distill_core.data.index_files import load_index
from distill_core.label_spaces.words import ClassWords
from distill_core.storage.manifest import Manifest
from distill_core.storage.records import seal_json, seal_page
from flows import units
from flows.reports.report_data import ReportData, gather
from flows.reports.tables import markdown_table
from flows.status.status import run_status
from tasks.run import Run, open_run
from tasks.runs.stage_status import manifests
from tasks.series import Version, version_of, versions_of
from tasks.stages.class_names import read_class_names
from tasks.stages.inputs import dataset_of
from tasks.stages.names import StageId
from tasks.stages.table import row_of, stages_of

VERSION = 1  # of the JSON


@dataclass(frozen=True)
class ClassDiff:
    """The differences of the classes of two versions of a dataset, by wnid."""

    added: tuple[str, ...]  # not in the previous version; returned ones included
    removed: tuple[str, ...]
    changed: tuple[str, ...]  # training images differ in names, sizes or hashes
    unchanged: int
    test_changed: bool  # whether accuracies were measured on different images


@dataclass(frozen=True)
class ShardDiff:
    """The differences of the shards of one manifest."""

    manifest: str  # a stage, or a stage and its image set
    recomputed: tuple[str, ...]  # names of shards that no earlier version has
    taken_over: int
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class AccuracyDiff:
    """Top-1 on the real test split after the last epoch, percent, mean over seeds."""

    network: str
    trained_on: str
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Diff:
    """The differences of a version from the previous one."""

    run: str
    previous: str
    policy: str
    dataset: tuple[str, str]  # before, after
    config: tuple[str, ...]  # first-level keys whose requested values differ
    classes: ClassDiff
    shards: tuple[ShardDiff, ...]
    missing: tuple[str, ...]  # failed shards that the run went on without
    accuracy: tuple[AccuracyDiff, ...]
    names: ClassWords = ClassWords({})  # of the classes

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able tree, with the readable names of the classes that differ."""
        tree = asdict(replace(self, names=ClassWords({})))
        del tree["names"]
        differ = (*self.classes.added, *self.classes.removed, *self.classes.changed)
        words = {wnid: self.names.words[wnid] for wnid in differ if wnid in self.names.words}
        return {"version": VERSION, **tree, **({"class_names": words} if words else {})}


def compare(run: Run, version: Version) -> Diff:
    """Return the differences of a version from the previous one."""
    before = open_run(run.store, version.previous)
    return Diff(
        run=run.name,
        previous=before.name,
        policy=version.policy,
        dataset=(version.dataset, dataset_of(run)),
        config=settings(requested_config(before), version.requested),
        classes=compare_classes(
            load_index(run.store, version.dataset), load_index(run.store, dataset_of(run))
        ),
        shards=_shards(before, run),
        missing=run_status(run).missing,
        accuracy=_accuracy(before, run),
        names=both_names(before, run),
    )


def both_names(before: Run, run: Run) -> ClassWords:
    """Return the readable names of the classes of two versions."""
    return ClassWords({**read_class_names(before).words, **read_class_names(run).words})


def compare_classes(before: DatasetIndex, after: DatasetIndex) -> ClassDiff:
    """Return which classes differ, in the order of their ids."""
    old, new = before.fingerprints, after.fingerprints
    both = [wnid for wnid in new if wnid in old]
    changed = tuple(wnid for wnid in both if old[wnid] != new[wnid])
    return ClassDiff(
        added=tuple(wnid for wnid in new if wnid not in old),
        removed=tuple(wnid for wnid in old if wnid not in new),
        changed=changed,
        unchanged=len(both) - len(changed),
        test_changed=before.test_fingerprint != after.test_fingerprint,
    )


def requested_config(run: Run) -> RunConfig:
    """Return the config that was requested, without the origin of the teacher."""
    version = version_of(run)
    return run.config if version is None else version.requested


def settings(before: RunConfig, after: RunConfig) -> tuple[str, ...]:
    """Return the first-level keys whose values differ."""
    old, new = before.model_dump(), after.model_dump()
    return tuple(key for key in new if old[key] != new[key])


def _shards(before: Run, run: Run) -> tuple[ShardDiff, ...]:
    old, new, known = _manifests(before), _manifests(run), _known(run)
    return tuple(
        ShardDiff(
            manifest=str(name),
            recomputed=tuple(e.shard for e in manifest.entries if e.key not in known),
            taken_over=sum(entry.key in known for entry in manifest.entries),
            bytes_before=_bytes(old.get(name)),
            bytes_after=_bytes(manifest),
        )
        for name, manifest in new.items()
    )


def _manifests(run: Run) -> dict[StageId, Manifest]:
    stages = stages_of(run.config)
    return {name: manifest for stage in stages for name, manifest in manifests(run, stage).items()}


def _known(run: Run) -> frozenset[str]:
    """Return the keys of all shards of earlier versions of the series."""
    series = versions_of(run.store, run.name.rpartition("-v")[0])
    earlier = takewhile(lambda version: version.name != run.name, series)
    listed = (manifest for version in earlier for manifest in _manifests(version).values())
    return frozenset(entry.key for manifest in listed for entry in manifest.entries)


def _bytes(manifest: Manifest | None) -> int:
    entries = () if manifest is None else manifest.entries
    return sum(count for entry in entries for _, count, _ in entry.files)


def _accuracy(before: Run, run: Run) -> tuple[AccuracyDiff, ...]:
    old, new = _accuracy_data(before), _accuracy_data(run)
    titles = {(r.student, r.images_of): r.trained_on for r in (*old.accuracy, *new.accuracy)}
    was, now = _scores(old), _scores(new)
    return tuple(
        AccuracyDiff(
            network, titles.get((network, images), images), was.get((network, images)), top1
        )
        for (network, images), top1 in (dict.fromkeys(was) | now).items()
    )


def _accuracy_data(run: Run) -> ReportData:
    return gather(run, [s for s in stages_of(run.config) if row_of(s).reports_accuracy])


def _scores(data: ReportData) -> dict[tuple[str, str], float | None]:
    """Return top-1 by (network, image set), the teachers first."""
    scores: dict[tuple[str, str], float | None] = {
        (
            f"{marker.summary.get('model')} (teacher {number})",
            "all real images",
        ): marker.summary.get("accuracy")
        for number, marker in enumerate(data.markers.get(StageId("squeeze"), ()))
    }
    return scores | {(row.student, row.images_of): row.last.mean for row in data.accuracy}


FILE = "diff.json"
NAMED = 20  # at most so many names in a line; the JSON has all
SHARD_HEADER = ("stage", "recomputed", "taken over", "bytes before", "bytes after")
ACCURACY_HEADER = ("network", "trained on", "before", "after", "difference")


def write_diff(run: Run) -> Diff | None:
    """Compare a version with the previous one, and write the result beside it.

    Returns:
        None: there is no previous version, or it was deleted.
    """
    version = version_of(run)
    if version is None or not run.store.exists(f"runs/{version.previous}/run.yaml"):
        return None
    diff = compare(run, version)
    run.store.put(run.path(FILE), seal_json(diff.to_json()))
    run.store.put(run.path("diff.md"), seal_page(markdown(diff)))
    return diff


def markdown(diff: Diff) -> str:
    """Return the differences as Markdown."""
    shards = markdown_table(SHARD_HEADER, shard_cells(diff))
    accuracy = markdown_table(ACCURACY_HEADER, accuracy_cells(diff))
    return "\n\n".join(
        [
            f"# {diff.run} against {diff.previous}",
            "\n".join(f"- {line}" for line in lines(diff)),
            f"## Shards\n\n{shards}",
            f"## Accuracy\n\nTop-1 on the real test split, percent.\n\n{accuracy}\n",
        ]
    )


def lines(diff: Diff) -> list[str]:
    """Return the differences in lines, without the tables."""
    classes, names = diff.classes, diff.names.titles
    return [
        f"policy: {diff.policy}",
        f"dataset: {diff.dataset[0]}, now {diff.dataset[1]}",
        f"settings that differ: {', '.join(diff.config) or 'none'}",
        f"classes added: {named(names(classes.added))}",
        f"classes removed: {named(names(classes.removed))}",
        f"classes changed: {named(names(classes.changed))}",
        f"classes unchanged: {classes.unchanged:,}",
        f"test split: {'changed' if classes.test_changed else 'unchanged'}",
        f"shards missing: {named(diff.missing)}",
    ]


def shard_cells(diff: Diff) -> list[tuple[str, ...]]:
    """Return the body of the table of shards."""
    return [
        (
            shards.manifest,
            f"{len(shards.recomputed):,}",
            f"{shards.taken_over:,}",
            units.size(shards.bytes_before),
            units.size(shards.bytes_after),
        )
        for shards in diff.shards
    ]


def accuracy_cells(diff: Diff) -> list[tuple[str, ...]]:
    """Return the body of the table of accuracies."""
    return [
        (row.network, row.trained_on, _percent(row.before), _percent(row.after), _gain(row))
        for row in diff.accuracy
    ]


def named(names: Sequence[str]) -> str:
    """Return the number of names, and the first of them."""
    if not names:
        return "none"
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{len(names):,} ({', '.join(names[:NAMED])}{more})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _gain(row: AccuracyDiff) -> str:
    if row.before is None or row.after is None:
        return "-"
    return f"{row.after - row.before:+.1f}"
