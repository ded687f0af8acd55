"""Verification of a run: every file that belongs to it is read and compared.

Records are compared with their own digests and places, manifests with the plan of the run and with
markers, files with markers, and the index with its id.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import pyarrow.parquet as pq

from distill_core.data.archives import STAGE as ARCHIVES
from distill_core.data.archives import archive_key
from distill_core.data.index_files import open_index
from distill_core.environment import mixed
from distill_core.errors import DataError, DistillError, StorageError
from distill_core.progress import Progress, silent
from distill_core.storage.digest import sha256
from distill_core.storage.manifest import Manifest, ManifestEntry, load_manifest, manifest_path
from distill_core.storage.markers import FileInfo, Marker
from distill_core.storage.row_groups import PARQUET_ERRORS
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from flows import units
from flows.maintenance.verify_chain import check_labels
from flows.maintenance.verify_records import Damage, check_plan, check_records
from flows.progress.display import display
from tasks.gc.run_references import PLAN_ERRORS
from tasks.jobs import Receipt
from tasks.run import Run
from tasks.stages.dataset_record import FILE as DATASET
from tasks.stages.inputs import NotReady, dataset_of
from tasks.stages.names import StageId
from tasks.stages.plan import manifests_of
from tasks.stages.table import row_of, stages_of

RESULT = "result.json"  # the file of a student's results, which its marker repeats


@dataclass(frozen=True)
class Verdict:
    """The result of verifying a run."""

    files: int
    bytes: int
    shards: int
    damage: tuple[Damage, ...]
    missing: tuple[str, ...]  # manifests that do not exist yet
    # Versions and hardware in which the shards differ: a warning, not damage
    mixed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def summary(self, run: str) -> str:
        """Return the last line of the output."""
        read = f"{self.files:,} files of {self.shards:,} shards, {units.size(self.bytes)}"
        missing = f"; not complete yet: {', '.join(self.missing)}" if self.missing else ""
        if not self.damage:
            return f"{run}: verified {read}{missing}"
        return (
            f"{run}: {len(self.damage)} damaged; read {read}{missing}. To repair, delete the "
            f"marker of a damaged shard or the damaged manifest, then run `distill resume {run}`."
        )


def verify_with_progress(run: Run) -> Verdict:
    """Verify a run, with a progress bar on a terminal and plain lines elsewhere."""
    started = time.monotonic()
    with display() as observer:
        observer.stage_started("verify", 1, 0)
        verdict = verify_run(run, progress=partial(observer.job_progress, "verify", run.name))
        observer.job_finished("verify", Receipt(run.name, run.name))
        observer.stage_finished("verify", time.monotonic() - started)
    return verdict


def verify_run(run: Run, *, progress: Progress = silent) -> Verdict:
    """Check a run's records and its dataset's index, and every file that a manifest leads to.

    Args:
        run: stages without a manifest are reported as missing, not as damage.
        progress: called with (bytes read, bytes in total).
    """
    present, missing, damage = _manifests(run)
    damage.extend(check_records(run))
    # Manifests of later rounds repeat entries of earlier ones; each is read once.
    entries: dict[tuple[str, ManifestEntry], StageId] = {}
    for name, manifest in (*present.items(), *_unchained(run, damage)):
        for entry in manifest.entries:
            entries.setdefault((name.kind, entry), name)
    archives, lost = _archives(run)
    damage.extend(lost)
    files = [size for _, entry in entries for _, size, _ in entry.files]
    files += [info.bytes for marker in archives for info in marker.files]
    done = 0
    for (kind, entry), name in entries.items():
        path = manifest_path(run.name, str(name))
        damage.extend(check_entry(ShardStore(run.store, kind), entry, manifest=path))
        done += sum(size for _, size, _ in entry.files)
        progress(done, sum(files))
    for info in (info for marker in archives for info in marker.files):
        damage.extend(_check_file(run.store, info, rows=0))
        done += info.bytes
        progress(done, sum(files))
    try:
        damage.extend(check_plan(run, present))
    except PLAN_ERRORS as error:
        if isinstance(error, StorageError):
            raise
        if not damage:  # otherwise the damaged file is named already
            damage.append(Damage(run.path(), f"the plan of the run cannot be made: {error}"))
    damage.extend(check_labels(run, present))
    environments = mixed(each for manifest in present.values() for each in manifest.made_with)
    shards = len(entries) + len(archives)
    return Verdict(len(files), sum(files), shards, tuple(damage), missing, environments)


def _archives(run: Run) -> tuple[list[Marker], list[Damage]]:
    """Return the decompressed archives that the images of a run are read from, and what is lost."""
    shard_store, found, lost = ShardStore(run.store, ARCHIVES), list[Marker](), list[Damage]()
    try:
        parts = open_index(run.store, dataset_of(run)).packs
    except (DataError, NotReady):
        return [], []  # whatever is wrong with the index is reported with it
    for key in map(archive_key, parts):
        try:
            marker = shard_store.marker(key)
        except DistillError as error:
            lost.append(Damage(shard_store.marker_path(key), f"cannot be read: {error}"))
            continue
        if marker is None:
            text = "the marker of a decompressed archive is missing"
            lost.append(Damage(shard_store.marker_path(key), text))
        else:
            found.append(marker)
    return found, lost


def check_entry(
    shard_store: ShardStore, entry: ManifestEntry, *, manifest: str
) -> Iterator[Damage]:
    """Yield the damage of one shard: manifest against marker, marker against files.

    Args:
        shard_store: of its stage.
        entry: of the shard in the manifest.
        manifest: path of the manifest.
    """
    path = shard_store.marker_path(entry.key)
    try:
        marker = shard_store.marker(entry.key)
    except DistillError as error:
        yield Damage(path, f"the marker of shard {entry.shard} cannot be read: {error}")
        return
    if marker is None:
        yield Damage(path, f"the marker of shard {entry.shard} is missing")
        return
    for problem in _differences(entry, ManifestEntry.of(marker)):
        yield Damage(manifest, f"shard {entry.shard}: {problem}")
    damage = [
        each for info in marker.files for each in _check_file(shard_store.store, info, marker.rows)
    ]
    yield from damage or _check_summary(shard_store, marker)


def _differences(listed: ManifestEntry, marked: ManifestEntry) -> Iterator[str]:
    """Yield the differences of a manifest and a marker; a shared shard may have several names."""
    for quantity in ("rows", "classes"):
        actual, expected = getattr(listed, quantity), getattr(marked, quantity)
        if actual != expected:
            yield f"{actual} {quantity} in the manifest, {expected} in its marker"
    ours, theirs = ({file[0]: file[1:] for file in entry.files} for entry in (listed, marked))
    for suffix in sorted(ours.keys() | theirs.keys()):
        if suffix not in theirs:
            yield f"the manifest has a .{suffix} file, the marker has none"
        elif suffix not in ours:
            yield f"the marker has a .{suffix} file, the manifest has none"
        elif ours[suffix] != theirs[suffix]:
            actual, expected = _described(*ours[suffix]), _described(*theirs[suffix])
            yield f".{suffix} file of {actual} in the manifest, of {expected} in its marker"


def _check_summary(shard_store: ShardStore, marker: Marker) -> Iterator[Damage]:
    """Compare the results in the marker of a student with those in its file."""
    if not any(info.suffix == RESULT for info in marker.files):
        return
    result, path = json.loads(shard_store.load(marker, RESULT)), shard_store.marker_path(marker.key)
    differing = [name for name in result if result[name] != marker.summary.get(name)]
    if differing:
        yield Damage(path, f"its summary differs from its .{RESULT} file in {differing[0]!r}")


def _check_file(store: Store, info: FileInfo, rows: int) -> Iterator[Damage]:
    try:
        data = store.read(info.path)
    except DistillError as error:
        yield Damage(info.path, str(error))
        return
    digest, is_parquet = sha256(data), info.path.endswith(".parquet")
    if digest != info.sha256:
        actual, expected = _described(len(data), digest), _described(info.bytes, info.sha256)
        place = f"; {locate_damage(data)}" if is_parquet else ""
        yield Damage(info.path, f"{actual}, do not match the marker ({expected}){place}")
    elif is_parquet:
        yield from _check_rows(info.path, data, rows)


def _check_rows(path: str, data: bytes, rows: int) -> Iterator[Damage]:
    try:
        actual = pq.ParquetFile(io.BytesIO(data)).metadata.num_rows
    except PARQUET_ERRORS as error:
        yield Damage(path, f"not a Parquet file: {error}")
        return
    if actual != rows:
        yield Damage(path, f"{actual} rows in the file, {rows} in its marker")


def locate_damage(data: bytes) -> str:
    """Return which row groups of a damaged Parquet file do not decode or fail their checksums."""
    try:
        file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
    except PARQUET_ERRORS:
        return "the footer cannot be read"
    groups = [number for number in range(file.num_row_groups) if not _reads(file, number)]
    if not groups:
        return "every row group can be read, so the damage is in the footer or between pages"
    names = ", ".join(map(str, groups))
    return f"row group {names} of {file.num_row_groups} cannot be read (counted from 0)"


def _reads(file: pq.ParquetFile, group: int) -> bool:
    try:
        file.read_row_group(group)
    except PARQUET_ERRORS:
        return False
    return True


def _described(size: int, digest: str) -> str:
    return f"{size} bytes, sha256 {digest[:12]}"


def _manifests(run: Run) -> tuple[dict[StageId, Manifest], tuple[str, ...], list[Damage]]:
    """Return manifests by name, the names of missing ones, and those that cannot be read."""
    present: dict[StageId, Manifest] = {}
    missing: list[str] = [] if run.store.exists(run.path(DATASET)) else ["ingest"]
    damage: list[Damage] = []
    for name in _names(run):
        try:
            manifest = load_manifest(run.store, run.name, str(name), sealed=run.sealed)
        except DataError as error:
            damage.append(Damage(manifest_path(run.name, str(name)), str(error)))
            continue
        if manifest is None:
            missing.append(str(name))
        else:
            present[name] = manifest
    return present, tuple(missing), damage


def _unchained(run: Run, damage: list[Damage]) -> Iterator[tuple[StageId, Manifest]]:
    """Yield the manifests on which no later stage builds; runs of older versions have none."""
    for stage in stages_of(run.config):
        if row_of(stage).record:
            try:
                manifest = load_manifest(run.store, run.name, str(stage), sealed=run.sealed)
            except DataError as error:
                damage.append(Damage(manifest_path(run.name, str(stage)), str(error)))
                continue
            if manifest is not None:
                yield stage, manifest


def _names(run: Run) -> Iterator[StageId]:
    """Yield the manifests of a run, but not those that depend on a damaged record."""
    for stage in stages_of(run.config):
        with suppress(DataError):  # of the dataset; it is reported by itself
            yield from manifests_of(run, stage)
