"""Data of a run for the report, the artidata and the last lines of a command, from storage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

from distill_core.config.load import fingerprint
from distill_core.data.index_files import open_index
from distill_core.environment import describe_mixed, mixed
from distill_core.errors import DataError
from distill_core.label_spaces.facts import find_space
from distill_core.label_spaces.words import ClassWords
from distill_core.storage.manifest import Manifest
from distill_core.storage.markers import Marker
from distill_core.storage.shard_store import ShardStore
from flows import units
from flows.reports import tables
from flows.reports.charts import Span
from flows.reports.tables import AccuracyRow, accuracy_cells, accuracy_rows
from tasks.run import Run
from tasks.runs.stage_status import manifests, missing_in
from tasks.stages.class_names import read_class_names
from tasks.stages.dataset_record import read_dataset_record
from tasks.stages.names import StageId
from tasks.stages.table import stages_of

T = TypeVar("T")

REPORT = "report/index.html"


@dataclass(frozen=True)
class ReportData:
    """The manifests and markers of a run's complete stages."""

    run: Run
    manifests: Mapping[StageId, Manifest]  # by name, e.g. "recover.random_real"
    markers: Mapping[StageId, tuple[Marker, ...]]  # by name, in plan order

    @cached_property
    def names(self) -> ClassWords:
        """Return the readable names of the run's classes."""
        return read_class_names(self.run)

    @property
    def teacher(self) -> Marker | None:
        """Return the teacher's marker."""
        return next(iter(self.markers.get(StageId("squeeze"), ())), None)

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the failed shards that the run was allowed to go on without."""
        return missing_in(self.manifests.values())

    @property
    def results(self) -> list[Mapping[str, Any]]:
        """Return the final result of every student."""
        students = {m.key: m.summary for m in self.markers.get(StageId("posttrain"), ())}
        blocks = [marker.summary for marker in self.markers.get(StageId("validate"), ())]
        return tables.final_results(students, blocks)

    @property
    def note(self) -> str:
        """Return an explanation of the columns of the accuracy table."""
        return tables.note(self.results)

    @property
    def accuracy(self) -> tuple[AccuracyRow, ...]:
        """Return the students' rows of the accuracy table."""
        return accuracy_rows(self.results)

    @property
    def cells(self) -> list[tuple[str, ...]]:
        """Return the body of the accuracy table, the teacher first."""
        return accuracy_cells(self.teacher.summary if self.teacher else None, self.accuracy)

    @property
    def report(self) -> str:
        """Return the report's path in the store."""
        return self.run.path(REPORT)


def gather(run: Run, stages: Sequence[StageId] | None = None) -> ReportData:
    """Read the manifests and markers of the complete ones of some stages, by default of all."""
    stages = stages_of(run.config) if stages is None else stages
    present = {
        name: manifest for stage in stages for name, manifest in manifests(run, stage).items()
    }
    markers = {name: _markers(run, name, manifest) for name, manifest in present.items()}
    return ReportData(run, present, markers)


def header(data: ReportData) -> list[tuple[str, str]]:
    """Return the (name, value) pairs at the top of the report and of the Prefect artifact."""
    config = data.run.config
    missing = [("made without", tables.without(data.missing))] if data.missing else []
    return [
        ("run", data.run.name),
        *missing,
        ("preset", config.preset),
        *_label_space(data.run),
        ("config fingerprint", fingerprint(config)),
        ("teacher", _teacher(data.teacher)),
        ("source", config.source),
        ("expected", config.expected),
        ("differs", config.differs),
        ("dates", _dates(data)),
        ("images", _stored(data, StageId("recover"), "images")),
        ("labels", _stored(data, StageId("relabel"), "views")),
        *_students_between_rounds(data),
        *_mixed(data),
        ("worker time", units.duration(sum(m.seconds for m in every_marker(data)))),
    ]


def _label_space(run: Run) -> list[tuple[str, str]]:
    """Return the label space of the set: that of the config, else the one whose classes it has."""
    name = run.config.data.label_space or _known_space(run)
    return [("label space", name)] if name else []


def _known_space(run: Run) -> str | None:
    with suppress(DataError):
        record = read_dataset_record(run)
        if record is not None:
            space = find_space(open_index(run.store, record.dataset).class_names)
            return None if space is None else space.name
    return None


def _mixed(data: ReportData) -> list[tuple[str, str]]:
    """Return the versions and the hardware in which the shards of a run differ, if they do."""
    facts = mixed(marker.made_with for marker in every_marker(data))
    return [("made with different", describe_mixed(facts))] if facts else []


def costs(data: ReportData) -> list[tuple[str, ...]]:
    """Return (stage, shards, seconds, bytes, devices) of the shards that each manifest adds."""
    return [
        (
            str(name),
            f"{len(markers):,}",
            units.duration(sum(marker.seconds for marker in markers)),
            units.size(sum(info.bytes for marker in markers for info in marker.files)),
            ", ".join(sorted({marker.device for marker in markers})) or "-",
        )
        for name, markers in _new_markers(data).items()
    ]


def _new_markers(data: ReportData) -> dict[StageId, list[Marker]]:
    """Return the markers of each manifest that no earlier one has, as rounds repeat shards."""
    known: set[tuple[str, str]] = set()
    added: dict[StageId, list[Marker]] = {}
    for name, markers in data.markers.items():
        added[name] = [m for m in markers if (name.kind, m.key) not in known]
        known.update((name.kind, marker.key) for marker in markers)
    return added


def spans(data: ReportData) -> list[Span]:
    """Return the times of all shards, in seconds since the first one began."""
    timed = [(m.stage, m.host, _time(m.finished), m.seconds) for m in every_marker(data)]
    if not timed:
        return []
    begin = min(finished - timedelta(seconds=seconds) for _, _, finished, seconds in timed)
    ends = [(finished - begin).total_seconds() for _, _, finished, _ in timed]
    return [
        Span(stage, host, max(0.0, end - seconds), end)
        for (stage, host, _, seconds), end in zip(timed, ends, strict=True)
    ]


def traces(data: ReportData, limit: int) -> list[dict[str, Any]]:
    """Return the curves and snapshots of at most `limit` evenly spaced image shards."""
    shard_store = ShardStore(data.run.store, "recover")
    chosen = spread(data.markers.get(StageId("recover"), ()), limit)
    with_trace = [m for m in chosen if any(info.suffix == "trace.json" for info in m.files)]
    return [json.loads(shard_store.load(marker, "trace.json")) for marker in with_trace]


def every_marker(data: ReportData) -> list[Marker]:
    """Return every marker once, also if several manifests have it."""
    return list({m.key: m for markers in data.markers.values() for m in markers}.values())


def spread(items: Sequence[T], limit: int) -> list[T]:
    """Return at most `limit` items, evenly spaced, the first and the last among them."""
    if len(items) <= limit:
        return list(items)
    return [items[round(n * (len(items) - 1) / max(1, limit - 1))] for n in range(limit)]


def _markers(run: Run, name: StageId, manifest: Manifest) -> tuple[Marker, ...]:
    shard_store = ShardStore(run.store, name.kind)
    markers = shard_store.markers([entry.key for entry in manifest.entries])
    return tuple(marker for marker in markers if marker is not None)


def _teacher(marker: Marker | None) -> str:
    if marker is None:
        return "not complete yet"
    digest = next((f.sha256[:12] for f in marker.files if f.suffix == "safetensors"), "?")
    return f"{marker.summary.get('model', marker.shard)}, sha256 {digest}"


def _students_between_rounds(data: ReportData) -> list[tuple[str, str]]:
    """Return the accuracies of the students between rounds, in order."""
    between = [
        marker.summary
        for name, markers in data.markers.items()
        if name.kind == "posttrain" and not name.is_last
        for marker in markers
    ]
    accuracies = ", ".join(f"{summary['last']['top1']:.1f} %" for summary in between)
    return [("students between rounds", f"top-1 {accuracies}")] if between else []


def _stored(data: ReportData, name: StageId, unit: str) -> str:
    if name not in data.manifests:
        return "not complete yet"
    manifest = data.manifests[name]
    rows = sum(entry.rows for entry in manifest.entries)
    return f"{rows:,} {unit}, {units.size(_bytes(manifest, 'parquet'))}"


def _bytes(manifest: Manifest, suffix: str | None = None) -> int:
    files = (file for entry in manifest.entries for file in entry.files)
    return sum(count for kind, count, _ in files if suffix in (None, kind))


def _dates(data: ReportData) -> str:
    ends = [(_time(marker.finished), marker.seconds) for marker in every_marker(data)]
    if not ends:
        return "-"
    begin = min(end - timedelta(seconds=seconds) for end, seconds in ends)
    return f"{begin:%Y-%m-%d %H:%M} to {max(ends)[0]:%Y-%m-%d %H:%M} UTC"


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
