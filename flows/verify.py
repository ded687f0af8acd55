"""Re-read and re-hash every file that the manifests of a run name."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from distill_core.errors import DistillError
from distill_core.progress import Progress, silent
from distill_core.storage.digest import sha256
from distill_core.storage.manifest import Manifest, ManifestEntry, load_manifest
from distill_core.storage.markers import StageShelf
from distill_core.storage.store import Store
from flows import units
from flows.progress import display
from tasks.runs import Run
from tasks.stages import STAGES, manifest_names


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
            "delete its marker and its stage's manifests, then resume."
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
    """Check sizes, sha256 and Parquet row counts of every file of every manifest.

    Args:
        run: stages without a manifest are reported as missing, not as damage.
        progress: told (bytes read, bytes in total).
    """
    found = _manifests(run)
    present = {name: manifest for name, manifest in found.items() if manifest is not None}
    files = [size for m in present.values() for entry in m.entries for _, size, _ in entry.files]
    damage: list[Damage] = []
    done = 0
    for name, manifest in present.items():
        shelf = StageShelf(run.store, name.split(".")[0])
        for entry in manifest.entries:
            damage.extend(check_entry(shelf, entry))
            done += sum(size for _, size, _ in entry.files)
            progress(done, sum(files))
    missing = tuple(name for name, manifest in found.items() if manifest is None)
    shards = sum(len(manifest.entries) for manifest in present.values())
    return Verdict(len(files), sum(files), shards, tuple(damage), missing)


def check_entry(shelf: StageShelf, entry: ManifestEntry) -> Iterator[Damage]:
    """Yield what is wrong with one shard."""
    where = shelf.marker_path(entry.key)
    try:
        marker = shelf.marker(entry.key)
    except DistillError as error:
        yield Damage(where, f"the marker of shard {entry.shard} cannot be read: {error}")
        return
    if marker is None:
        yield Damage(where, f"the marker of shard {entry.shard} is gone")
        return
    paths = {info.suffix: info.path for info in marker.files}
    for suffix, size, digest in entry.files:
        if suffix not in paths:
            yield Damage(where, f"the marker names no .{suffix} file, the manifest does")
            continue
        yield from _check_file(shelf.store, paths[suffix], size, digest, rows=entry.rows)


def _check_file(store: Store, path: str, size: int, digest: str, *, rows: int) -> Iterator[Damage]:
    try:
        data = store.read(path)
    except DistillError as error:
        yield Damage(path, str(error))
        return
    if len(data) != size or sha256(data) != digest:
        yield Damage(
            path,
            f"{len(data)} bytes, sha256 {sha256(data)[:12]}, do not match the manifest "
            f"({size} bytes, sha256 {digest[:12]})",
        )
    elif path.endswith(".parquet"):
        yield from _check_rows(path, data, rows)


def _check_rows(path: str, data: bytes, rows: int) -> Iterator[Damage]:
    try:
        found = pq.ParquetFile(io.BytesIO(data)).metadata.num_rows
    except pa.ArrowException as error:
        yield Damage(path, f"not Parquet: {error}")
        return
    if found != rows:
        yield Damage(path, f"{found} rows, the manifest says {rows}")


def _manifests(run: Run) -> Mapping[str, Manifest | None]:
    names = (name for stage in STAGES[1:] for name in manifest_names(run, stage))
    return {name: load_manifest(run.store, run.name, name) for name in names}
