"""What a version of a series has that the version before had not: classes, shards, accuracy, bytes.

Read from manifests, markers and indexes alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any

from distill_core.config.schema import RunConfig
from distill_core.data.index import DatasetIndex, load_index
from distill_core.storage.manifest import Manifest
from flows.reports.report_data import gather
from flows.reports.tables import SETS
from flows.status.status import run_status
from tasks.run import Run, open_run
from tasks.runs.stage_status import manifests
from tasks.series import Version, version_of, versions_of
from tasks.stages.inputs import dataset_of
from tasks.stages.names import StageId
from tasks.stages.table import row_of, stages_of

VERSION = 1  # of the JSON


@dataclass(frozen=True)
class ClassDiff:
    """The classes of two versions of a dataset, by wnid."""

    added: tuple[str, ...]  # there now and not before, returned ones included
    removed: tuple[str, ...]
    changed: tuple[str, ...]  # other training images: names, sizes or hashes
    unchanged: int
    test_changed: bool  # whether accuracy is measured on other images


@dataclass(frozen=True)
class ShardDiff:
    """The shards of one manifest."""

    manifest: str  # a stage, or a stage and its image set
    recomputed: tuple[str, ...]  # names of those that no earlier version has
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
    """One version against the one before."""

    run: str
    previous: str
    policy: str
    dataset: tuple[str, str]  # before, after
    config: tuple[str, ...]  # first-level keys that were asked differently
    classes: ClassDiff
    shards: tuple[ShardDiff, ...]
    missing: tuple[str, ...]  # shards that the run went on without
    accuracy: tuple[AccuracyDiff, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able tree."""
        return {"version": VERSION, **asdict(self)}


def compare(run: Run, version: Version) -> Diff:
    """Return what a version changed."""
    before = open_run(run.store, version.previous)
    return Diff(
        run=run.name,
        previous=before.name,
        policy=version.policy,
        dataset=(version.dataset, dataset_of(run)),
        config=_settings(_asked(before), version.requested),
        classes=compare_classes(
            load_index(run.store, version.dataset), load_index(run.store, dataset_of(run))
        ),
        shards=_shards(before, run),
        missing=run_status(run).missing,
        accuracy=_accuracy(before, run),
    )


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


def _asked(run: Run) -> RunConfig:
    version = version_of(run)
    return run.config if version is None else version.requested


def _settings(before: RunConfig, after: RunConfig) -> tuple[str, ...]:
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
    return {name: one for stage in stages for name, one in manifests(run, stage).items()}


def _known(run: Run) -> frozenset[str]:
    """Return the key of every shard that an earlier version of the series lists."""
    series = versions_of(run.store, run.name.rpartition("-v")[0])
    earlier = takewhile(lambda one: one.name != run.name, series)
    listed = (manifest for one in earlier for manifest in _manifests(one).values())
    return frozenset(entry.key for manifest in listed for entry in manifest.entries)


def _bytes(manifest: Manifest | None) -> int:
    entries = () if manifest is None else manifest.entries
    return sum(count for entry in entries for _, count, _ in entry.files)


def _accuracy(before: Run, run: Run) -> tuple[AccuracyDiff, ...]:
    old, new = _scores(before), _scores(run)
    return tuple(
        AccuracyDiff(network, trained_on, old.get((network, trained_on)), after)
        for (network, trained_on), after in (dict.fromkeys(old) | new).items()
    )


def _scores(run: Run) -> dict[tuple[str, str], float | None]:
    """Return top-1 by (network, what it was trained on), the teacher first."""
    found = gather(run, [s for s in stages_of(run.config) if row_of(s).reports_accuracy])
    scores: dict[tuple[str, str], float | None] = {
        (
            f"{marker.summary.get('model')} (teacher {number})",
            "all real images",
        ): marker.summary.get("accuracy")
        for number, marker in enumerate(found.markers.get(StageId("squeeze"), ()))
    }
    students = {
        (r.student, SETS.get(r.images_of, r.images_of)): r.last.mean for r in found.accuracy
    }
    return scores | students
