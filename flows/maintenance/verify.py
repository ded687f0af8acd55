"""Re-read and re-hash every file that the manifests of a run name."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from distill_core.errors import DataError, DistillError
from distill_core.progress import Progress, silent
from distill_core.storage.digest import sha256
from distill_core.storage.manifest import Manifest, ManifestEntry, load_manifest, manifest_path
from distill_core.storage.markers import FileInfo
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from flows import units
from flows.progress.display import display
from tasks.run import Run
from tasks.stages.names import StageId
from tasks.stages.plan import manifests_of
from tasks.stages.table import stages_of


@dataclass(frozen=True)
class Damage:
    """One file that is not what its manifest says."""

    path: str
    problem: str

    def __str__(self) -> str:
        """Return ``path: problem``."""
        return f"{self.path}: {self.problem}"


@dataclass(frozen=True)
class Verdict:
    """What verifying a run found."""

    files: int
    bytes: int
    shards: int
    damage: tuple[Damage, ...]
    missing: tuple[str, ...]  # manifests that do not exist yet

    def summary(self, run: str) -> str:
        """Return the last line for people."""
        read = f"{self.files:,} files of {self.shards:,} shards, {units.size(self.bytes)}"
        missing = f"; not there yet: {', '.join(self.missing)}" if self.missing else ""
        if not self.damage:
            return f"{run}: verified {read}{missing}"
        return (
            f"{run}: {len(self.damage)} damaged; read {read}{missing}. To make a shard again, "
            "delete its marker, to write a manifest again, delete it; then resume."
        )


def verify_with_progress(run: Run) -> Verdict:
    """Verify a run under a progress bar, or with plain lines where there is no terminal."""
    started = time.monotonic()
    with display() as shown:
        shown.stage_started("verify", 1, 0)
        verdict = verify_run(run, progress=partial(shown.job_progress, "verify", run.name))
        shown.stage_finished("verify", time.monotonic() - started)
    return verdict


def verify_run(run: Run, *, progress: Progress = silent) -> Verdict:
    """Check every manifest against its markers, and every file against its marker.

    Args:
        run: stages without a manifest are reported as missing, not as damage.
        progress: told (bytes read, bytes in total).
    """
    present, missing, damage = _manifests(run)
    # What several manifests say alike is read once: those of later rounds repeat earlier ones.
    entries: dict[tuple[str, ManifestEntry], StageId] = {}
    for name, manifest in present.items():
        for entry in manifest.entries:
            entries.setdefault((name.kind, entry), name)
    files = [size for _, entry in entries for _, size, _ in entry.files]
    done = 0
    for (kind, entry), name in entries.items():
        where = manifest_path(run.name, str(name))
        damage.extend(check_entry(ShardStore(run.store, kind), entry, manifest=where))
        done += sum(size for _, size, _ in entry.files)
        progress(done, sum(files))
    return Verdict(len(files), sum(files), len(entries), tuple(damage), missing)


def check_entry(
    shard_store: ShardStore, entry: ManifestEntry, *, manifest: str
) -> Iterator[Damage]:
    """Yield what is wrong with one shard: manifest against marker, marker against files.

    Args:
        shard_store: of its stage.
        entry: what the manifest says of it.
        manifest: path of the manifest.
    """
    where = shard_store.marker_path(entry.key)
    try:
        marker = shard_store.marker(entry.key)
    except DistillError as error:
        yield Damage(where, f"the marker of shard {entry.shard} cannot be read: {error}")
        return
    if marker is None:
        yield Damage(where, f"the marker of shard {entry.shard} is gone")
        return
    for problem in _differences(entry, ManifestEntry.of(marker)):
        yield Damage(manifest, f"shard {entry.shard}: {problem}")
    for info in marker.files:
        yield from _check_file(shard_store.store, info, rows=marker.rows)


def _differences(listed: ManifestEntry, marked: ManifestEntry) -> Iterator[str]:
    """Yield where a manifest and a marker disagree; a shared shard may have several names."""
    for what in ("rows", "classes"):
        said, true = getattr(listed, what), getattr(marked, what)
        if said != true:
            yield f"{said} {what}, its marker says {true}"
    ours, theirs = ({file[0]: file[1:] for file in one.files} for one in (listed, marked))
    for suffix in sorted(ours.keys() | theirs.keys()):
        if suffix not in theirs:
            yield f"the marker names no .{suffix} file, the manifest does"
        elif suffix not in ours:
            yield f"the manifest names no .{suffix} file, the marker does"
        elif ours[suffix] != theirs[suffix]:
            said, true = _described(*ours[suffix]), _described(*theirs[suffix])
            yield f".{suffix} of {said}, its marker says {true}"


def _check_file(store: Store, info: FileInfo, *, rows: int) -> Iterator[Damage]:
    try:
        data = store.read(info.path)
    except DistillError as error:
        yield Damage(info.path, str(error))
        return
    digest, is_parquet = sha256(data), info.path.endswith(".parquet")
    if digest != info.sha256:
        found, said = _described(len(data), digest), _described(info.bytes, info.sha256)
        place = f"; {locate_damage(data)}" if is_parquet else ""
        yield Damage(info.path, f"{found}, do not match the marker ({said}){place}")
    elif is_parquet:
        yield from _check_rows(info.path, data, rows)


def _check_rows(path: str, data: bytes, rows: int) -> Iterator[Damage]:
    try:
        found = pq.ParquetFile(io.BytesIO(data)).metadata.num_rows
    except pa.ArrowException as error:
        yield Damage(path, f"not Parquet: {error}")
        return
    if found != rows:
        yield Damage(path, f"{found} rows, the marker says {rows}")


def locate_damage(data: bytes) -> str:
    """Return which row groups of a damaged Parquet file do not decode or fail their checksums."""
    try:
        file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
    except (pa.ArrowException, OSError):
        return "the footer cannot be read"
    groups = [number for number in range(file.num_row_groups) if not _reads(file, number)]
    if not groups:
        return "every row group reads, so the damage is in the footer or between pages"
    names = ", ".join(map(str, groups))
    return f"row group {names} of {file.num_row_groups} does not read, counted from 0"


def _reads(file: pq.ParquetFile, group: int) -> bool:
    try:
        file.read_row_group(group)
    except (pa.ArrowException, OSError):
        return False
    return True


def _described(size: int, digest: str) -> str:
    return f"{size} bytes, sha256 {digest[:12]}"


def _manifests(run: Run) -> tuple[dict[StageId, Manifest], tuple[str, ...], list[Damage]]:
    """Return manifests by name, the names of missing ones, and what cannot be read."""
    found: dict[StageId, Manifest] = {}
    missing: list[str] = []
    damage: list[Damage] = []
    for name in (name for stage in stages_of(run.config) for name in manifests_of(run, stage)):
        try:
            manifest = load_manifest(run.store, run.name, str(name))
        except DataError as error:
            damage.append(Damage(manifest_path(run.name, str(name)), str(error)))
            continue
        if manifest is None:
            missing.append(str(name))
        else:
            found[name] = manifest
    return found, tuple(missing), damage
