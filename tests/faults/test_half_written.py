"""A writer that fails or dies halfway leaves no object at a final name, for every writer."""

from __future__ import annotations

import ast
import errno
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

import pytest

from distill_core.data.ingest import ingest
from distill_core.errors import StorageError
from distill_core.storage.backends import LocalBackend
from distill_core.storage.checkpoints import Checkpoints
from distill_core.storage.identity import PATH as IDENTITY
from distill_core.storage.identity import ensure_identity
from distill_core.storage.listing import PARTIAL
from distill_core.storage.manifest import Manifest, save_manifest
from distill_core.storage.markers import ShardFacts
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store, probe
from flows.progress.event_log import EventLog
from flows.reports.report import write_report
from tasks.execution import Execution
from tasks.gc.clock import store_time
from tasks.gc.collect import collect
from tasks.gc.grammar import recognise
from tasks.jobs import Receipt
from tasks.pools.failures import Failure
from tasks.run import Run, create_run
from tasks.runs.failure_records import keep_failures
from tasks.runs.heartbeat import Heartbeat
from tasks.series import Version, claim
from tasks.stages.dataset_record import record_dataset
from tasks.stages.table import sharded_kinds
from tests.support.datasets import data_config, image_folder
from tests.support.fabricate import finished_run
from tests.support.repository import ROOT

WRITES = re.compile(r"[rwxab+t]*[wxa+][rwxab+t]*")
CREATORS = ("write_bytes", "write_text", "pipe_file", "mkstemp", "NamedTemporaryFile")
# Who opens files for writing: the store's own backend, and the log of a local server.
KNOWN = {
    "distill_core/storage/backends.py",  # where the promise is kept: on disks
    "distill_core/storage/object_backend.py",  # and in buckets
    "flows/commands/failures.py",  # the report of an error of our own
    "flows/orchestration/delivery.py",  # the log of Prefect
    "flows/orchestration/temporary_server.py",  # the log of a server of our own
    "tasks/pools/ray_watch.py",  # the log of a Ray that is gone
    "tasks/pools/session_folder.py",  # a lock beside Ray's folder on this machine
}
HOUSES = ("distill_core", "tasks", "flows")


def commit_a_shard(run: Run, stage: str) -> None:
    """Commit a shard of two files."""
    ShardStore(run.store, stage).commit(
        "ab" * 16,
        shard="new",
        files={"parquet": b"rows" * 100, "trace.json": b"{}" * 100},
        facts=ShardFacts(rows=1, classes=1, seconds=0.0, device="cpu"),
    )


def save_a_checkpoint(run: Run) -> None:
    """Save two, so that the second removes the first."""
    for step in (1, 2):
        Checkpoints(run.store, "squeeze", "ab" * 16, "01" * 16).save(step, b"state" * 100)


def log_events(run: Run) -> None:
    """Write a part of an event log."""
    log = EventLog(run)
    log.stage_started("recover", 2, 0)
    log.job_finished("recover", Receipt("key", "shard"))
    log.stage_finished("recover", 1.0)


def ingest_a_dataset(run: Run) -> None:
    """Index a small dataset and name it."""
    data = image_folder(Path(run.store.url).with_name("data"))
    record_dataset(run, ingest(data_config(data), run.store))


def keep_a_failure(run: Run) -> None:
    """Keep why a shard was given up."""
    keep_failures(run, "recover", {"shard": Failure(3, ValueError("poisoned"), "traceback")})


def beat(run: Run) -> None:
    """Write what a driver is doing; it works on when it cannot."""
    Heartbeat(run, Execution(store=run.store.url)).write()


WRITERS: Mapping[str, Callable[[Run], object]] = {
    **{f"shard of {s}": lambda run, s=s: commit_a_shard(run, s) for s in sharded_kinds()},
    "manifest": lambda run: save_manifest(run.store, run.name, Manifest("recover", ())),
    "run.yaml": lambda run: create_run(run.config, run.store, "another"),
    "version": lambda run: claim(run, Version("before", "tiny-0", "keep", run.config)),
    "dataset": ingest_a_dataset,
    "failure": keep_a_failure,
    "checkpoint": save_a_checkpoint,
    "report": write_report,
    "events": log_events,
    "driver": beat,
    "probe": lambda run: probe(run.store),
    "identity": lambda run: (run.store.delete(IDENTITY), ensure_identity(run.store)),
    "clock": lambda run: store_time(run.store),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_the_collection_knows_the_name_of_everything_that_is_written(
    writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, written = finished_run(tmp_path), set[str]()
    for name in ("put", "create"):
        original = getattr(Store, name)

        def noting(self: Store, path: str, data: bytes, original: Any = original) -> Any:
            written.add(path)
            return original(self, path, data)

        monkeypatch.setattr(Store, name, noting)
    WRITERS[writer](run)
    assert written
    assert {path for path in written if recognise(path) is None} == set()


class FullDisk:
    """A disk that is full in the middle of one write; it notes what was meant to be written."""

    def __init__(self, fails_at: int) -> None:
        self._fails_at, self._writes = fails_at, count()
        self.meant: set[tuple[str, bytes]] = set()
        self.cut_short: list[tuple[bytes | None, bytes | None]] = []  # there before and after

    def __enter__(self) -> FullDisk:
        """Take the place of the real disk."""
        self._patches = [
            patch.object(LocalBackend, name, self._noting(getattr(LocalBackend, name)))
            for name in ("put", "create")
        ]
        self._patches.append(patch.object(Path, "open", self._opening(Path.open)))
        for one in self._patches:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the real disk back."""
        for one in self._patches:
            one.stop()

    def _noting(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def there(backend: LocalBackend, path: str) -> bytes | None:
            return backend.read(path) if backend.is_file(path) else None

        def noting(backend: LocalBackend, path: str, data: bytes) -> Any:
            before = there(backend, path)
            self.meant.add((path, data))
            try:
                return write(backend, path, data)
            except OSError:
                self.cut_short.append((before, there(backend, path)))
                raise

        return noting

    def _opening(self, opened: Callable[..., Any]) -> Callable[..., Any]:
        def opening(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
            stream = opened(path, mode, *rest, **options)
            if mode == "xb" and next(self._writes) == self._fails_at:
                return Half(stream)
            return stream

        return opening


class Half:
    """A file on a disk that fills up halfway."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def __enter__(self) -> Half:
        """Open it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._stream.close()

    def write(self, data: bytes) -> None:
        """Write half."""
        self._stream.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


def contents(store: Store) -> dict[str, bytes]:
    """Return every object of a store, partial files included."""
    return {file.path: store.read(file.path) for file in store.files("", partial=True)}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_disk_that_is_full_halfway_leaves_only_whole_objects(writer: str, tmp_path: Path) -> None:
    for fails_at in count():
        folder = tmp_path / f"{fails_at}"
        folder.mkdir()
        run = finished_run(folder)
        before = contents(run.store)
        with FullDisk(fails_at) as disk, suppress(StorageError):
            WRITERS[writer](run)
        if not disk.cut_short:
            break
        ((stood, stands),) = disk.cut_short
        assert stands == stood
        assert contents(run.store).items() <= before.items() | disk.meant
    assert fails_at > 0, "nothing was written at all"


DIES = """
import os, signal, sys
from pathlib import Path
from distill_core.storage.markers import ShardFacts
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store

opened, fails_at = Path.open, int(sys.argv[2])

class Dying:
    def __init__(self, stream): self.stream = stream
    def __enter__(self): return self
    def __exit__(self, *_): self.stream.close()
    def write(self, data):
        self.stream.write(data[: len(data) // 2])
        self.stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)

def opening(path, mode="r", *rest, **options):
    global fails_at
    stream = opened(path, mode, *rest, **options)
    fails_at -= mode == "xb"
    return Dying(stream) if mode == "xb" and fails_at < 0 else stream

Path.open = opening
ShardStore(Store(sys.argv[1]), "recover").commit(
    "ab" * 16, shard="s", files={"parquet": b"rows" * 100, "trace.json": b"{}" * 100},
    facts=ShardFacts(rows=1, classes=1, seconds=0.0, device="cpu"),
)
"""


@pytest.mark.parametrize(("fails_at", "whole"), [(0, 0), (1, 1), (2, 2)])
def test_a_writer_killed_halfway_leaves_no_marker_and_gc_removes_the_rest(
    fails_at: int, whole: int, tmp_path: Path
) -> None:
    store = Store(str(tmp_path / "store"))
    killed = subprocess.run([sys.executable, "-c", DIES, store.url, str(fails_at)], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = store.files("", partial=True)
    partial = [file for file in left if file.path.endswith(PARTIAL)]
    assert len(partial) == 1
    assert len(left) - len(partial) == whole
    assert ShardStore(store, "recover").done() == frozenset()
    ensure_identity(store)
    collect(store, clock=lambda _store: datetime.now(UTC) + timedelta(days=8))
    assert [file.path for file in store.files("", partial=True)] == [IDENTITY]


def writes(path: Path) -> bool:
    """Return whether a module opens or makes a file for itself."""
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    names = [(call, getattr(call.func, "attr", getattr(call.func, "id", ""))) for call in calls]
    modes = [
        word.value
        for call, name in names
        if name == "open"
        for word in (*call.args, *(keyword.value for keyword in call.keywords))
        if isinstance(word, ast.Constant) and isinstance(word.value, str)
    ]
    others = {*CREATORS} & {name for _, name in names}
    return bool(others) or any(map(WRITES.fullmatch, modes))


def test_every_write_goes_through_a_store() -> None:
    modules = [p for house in HOUSES for p in sorted((ROOT / house).rglob("*.py"))]
    assert {str(path.relative_to(ROOT)) for path in modules if writes(path)} == KNOWN, (
        "write through Store.put or Store.create, which leave nothing half-written; "
        "what is no object of a store is added to KNOWN, with the reason"
    )
