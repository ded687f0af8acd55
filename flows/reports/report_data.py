"""What the report, the artifacts and the last lines of a run need to know; read from storage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from distill_core.config.load import fingerprint
from distill_core.storage.manifest import Manifest
from distill_core.storage.markers import Marker
from distill_core.storage.shard_store import ShardStore
from flows import units
from flows.reports import tables
from flows.reports.charts import Span
from flows.reports.tables import AccuracyRow, accuracy_cells, accuracy_rows
from tasks.run import Run
from tasks.runs.stage_status import manifests, missing_in
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

    @property
    def teacher(self) -> Marker | None:
        """Return the teacher's marker."""
        return next(iter(self.markers.get(StageId("squeeze"), ())), None)

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the shards without which this was made: they failed, and that was allowed."""
        return missing_in(self.manifests.values())

    @property
    def results(self) -> list[Mapping[str, Any]]:
        """Return the summary of every student, as finally judged."""
        students = {m.key: m.summary for m in self.markers.get(StageId("posttrain"), ())}
        blocks = [marker.summary for marker in self.markers.get(StageId("validate"), ())]
        return tables.final_results(students, blocks)

    @property
    def note(self) -> str:
        """Return what the columns of the accuracy table mean."""
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
    """Read the manifests of those stages that are complete, all by default, and their markers."""
    stages = stages_of(run.config) if stages is None else stages
    found = {name: one for stage in stages for name, one in manifests(run, stage).items()}
    return ReportData(run, found, {name: _markers(run, name, m) for name, m in found.items()})


def header(facts: ReportData) -> list[tuple[str, str]]:
    """Return the (what, value) pairs at the top of the report and of the Prefect artifact."""
    config = facts.run.config
    missing = [("made without", tables.without(facts.missing))] if facts.missing else []
    return [
        ("run", facts.run.name),
        *missing,
        ("preset", config.preset),
        ("config fingerprint", fingerprint(config)),
        ("teacher", _teacher(facts.teacher)),
        ("source", config.source),
        ("expected", config.expected),
        ("differs", config.differs),
        ("dates", _dates(facts)),
        ("images", _stored(facts, StageId("recover"), "images")),
        ("labels", _stored(facts, StageId("relabel"), "views")),
        *_students_between_rounds(facts),
        ("worker time", units.duration(sum(m.seconds for m in every_marker(facts)))),
    ]


def costs(facts: ReportData) -> list[tuple[str, ...]]:
    """Return (stage, shards, seconds, bytes, devices) by manifest, of what is new in each."""
    return [
        (
            str(name),
            f"{len(markers):,}",
            units.duration(sum(marker.seconds for marker in markers)),
            units.size(sum(info.bytes for marker in markers for info in marker.files)),
            ", ".join(sorted({marker.device for marker in markers})) or "-",
        )
        for name, markers in _new_markers(facts).items()
    ]


def _new_markers(facts: ReportData) -> dict[StageId, list[Marker]]:
    """Return the markers of each manifest that no one before it names: rounds repeat each other."""
    seen: set[tuple[str, str]] = set()
    found: dict[StageId, list[Marker]] = {}
    for name, markers in facts.markers.items():
        found[name] = [m for m in markers if (name.kind, m.key) not in seen]
        seen.update((name.kind, marker.key) for marker in markers)
    return found


def spans(facts: ReportData) -> list[Span]:
    """Return when each shard ran, in seconds since the first began."""
    timed = [(m.stage, m.host, _time(m.finished), m.seconds) for m in every_marker(facts)]
    if not timed:
        return []
    begin = min(finished - timedelta(seconds=seconds) for _, _, finished, seconds in timed)
    ends = [(finished - begin).total_seconds() for _, _, finished, _ in timed]
    return [
        Span(stage, host, max(0.0, end - seconds), end)
        for (stage, host, _, seconds), end in zip(timed, ends, strict=True)
    ]


def traces(facts: ReportData, limit: int) -> list[dict[str, Any]]:
    """Return the recorded curves and snapshots of at most `limit` evenly spaced image shards."""
    shard_store = ShardStore(facts.run.store, "recover")
    chosen = spread(facts.markers.get(StageId("recover"), ()), limit)
    with_trace = [m for m in chosen if any(info.suffix == "trace.json" for info in m.files)]
    return [json.loads(shard_store.load(marker, "trace.json")) for marker in with_trace]


def every_marker(facts: ReportData) -> list[Marker]:
    """Return each marker once, whatever number of manifests name it."""
    return list({m.key: m for markers in facts.markers.values() for m in markers}.values())


def spread(items: Sequence[T], limit: int) -> list[T]:
    """Return at most `limit` items, evenly spaced, the first and the last among them."""
    if len(items) <= limit:
        return list(items)
    return [items[round(n * (len(items) - 1) / max(1, limit - 1))] for n in range(limit)]


def _markers(run: Run, name: StageId, manifest: Manifest) -> tuple[Marker, ...]:
    shard_store = ShardStore(run.store, name.kind)
    found = shard_store.markers([entry.key for entry in manifest.entries])
    return tuple(marker for marker in found if marker is not None)


def _teacher(marker: Marker | None) -> str:
    if marker is None:
        return "not there yet"
    digest = next((f.sha256[:12] for f in marker.files if f.suffix == "safetensors"), "?")
    return f"{marker.summary.get('model', marker.shard)}, sha256 {digest}"


def _students_between_rounds(facts: ReportData) -> list[tuple[str, str]]:
    """Return what the students that rounds ask get right, in order."""
    between = [
        marker.summary
        for name, markers in facts.markers.items()
        if name.kind == "posttrain" and not name.is_last
        for marker in markers
    ]
    said = ", ".join(f"{one['last']['top1']:.1f} %" for one in between)
    return [("students between rounds", f"top-1 {said}")] if between else []


def _stored(facts: ReportData, name: StageId, unit: str) -> str:
    if name not in facts.manifests:
        return "not there yet"
    manifest = facts.manifests[name]
    rows = sum(entry.rows for entry in manifest.entries)
    return f"{rows:,} {unit}, {units.size(_bytes(manifest, 'parquet'))}"


def _bytes(manifest: Manifest, suffix: str | None = None) -> int:
    files = (file for entry in manifest.entries for file in entry.files)
    return sum(count for kind, count, _ in files if suffix in (None, kind))


def _dates(facts: ReportData) -> str:
    ends = [(_time(marker.finished), marker.seconds) for marker in every_marker(facts)]
    if not ends:
        return "-"
    begin = min(end - timedelta(seconds=seconds) for end, seconds in ends)
    return f"{begin:%Y-%m-%d %H:%M} to {max(ends)[0]:%Y-%m-%d %H:%M} UTC"


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
