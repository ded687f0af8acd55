"""The record of each driver of a run, in a file of its own: advisory, for people and `status`.

Only markers record what is complete. A driver that cannot write its file continues to work. A
driver that was killed leaves a file in state "running" that is no longer updated and lists the
shards that it left unfinished.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from distill_core.errors import DistillError
from distill_core.storage.records import seal_json
from tasks.run import Run

STALE_SECONDS = 60.0  # without an update: the driver is gone, or cannot reach the store


@dataclass(frozen=True)
class RunningShard:
    """A shard that runs on one of a driver's workers."""

    stage: str
    shard: str
    since: str  # ISO 8601, UTC


@dataclass(frozen=True)
class DriverRecord:
    """The state of a driver; times are ISO 8601 by its own clock, in UTC."""

    id: str
    host: str
    pid: int
    device: str
    started: str
    updated: str
    state: Literal["running", "finished", "stopped"] = "running"
    reason: str = ""  # name of the error that stopped it
    stage: str | None = None  # the current one, or the last one
    stage_started: str | None = None
    stage_total: int | None = None  # its shards; None: not known, or an older version
    stage_done: int = 0  # of them, as far as this driver knows
    stage_done_before: int = 0  # of them, when this driver came to it
    running: tuple[RunningShard, ...] = ()  # in order of start
    done: int = 0  # shards that it committed, in all stages
    workers: int = 0  # of the current stage that are there
    gpus_per_worker: float = 0.0  # in the current stage; a gang counts as one worker
    # Time spent on shards by stage, including failed and running attempts.
    worker_seconds: dict[str, float] = field(default_factory=dict)
    gpu_seconds: dict[str, float] = field(default_factory=dict)  # shares of a GPU count as such
    # Time that workers were there by stage, busy or not; older versions do not know it.
    present_seconds: dict[str, float] = field(default_factory=dict)
    # Requests to buckets by stage and kind: of finished shards, and of this driver itself.
    requests: dict[str, dict[str, int]] = field(default_factory=dict)
    traffic: dict[str, dict[str, int]] = field(default_factory=dict)  # their bytes, likewise
    processes: str = ""  # `process_space` of its process; empty: not known, or an older version

    def to_json(self) -> bytes:
        """Return the record as JSON."""
        return seal_json(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> DriverRecord:
        """Read a record; fields that a newer version added are ignored.

        Raises:
            ValueError, TypeError: the data is not a record.
        """
        tree: dict[str, Any] = json.loads(data)
        known = {f.name: tree[f.name] for f in fields(cls) if f.name in tree}
        known["running"] = tuple(RunningShard(**shard) for shard in known.get("running", ()))
        record = cls(**known)
        for time in (record.updated, *(shard.since for shard in record.running)):
            parse_time(time)
        return record

    def is_alive(self, now: datetime) -> bool:
        """Return whether the driver is running and updated its record recently."""
        silence = (now - parse_time(self.updated)).total_seconds()
        return self.state == "running" and silence < STALE_SECONDS

    def is_lost(self, now: datetime) -> bool:
        """Return whether the driver was killed, or lost its connection to the store."""
        return self.state == "running" and not self.is_alive(now)


def parse_time(text: str) -> datetime:
    """Read an ISO 8601 time; without a zone it is in UTC."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def format_time(time: datetime) -> str:
    """Return a time in ISO 8601, to the second."""
    return time.isoformat(timespec="seconds")


def driver_path(run: Run, driver: str) -> str:
    """Return the path of a driver's file."""
    return run.path("drivers", f"{driver}.json")


def read_drivers(run: Run, without: Collection[str] = ()) -> tuple[DriverRecord, ...]:
    """Return the drivers of a run in order of start; files that are not records are skipped.

    Args:
        run: the run.
        without: ids of drivers whose records are not read.
    """
    records = []
    for name in run.store.names(run.path("drivers")):
        if name.removesuffix(".json") in without:
            continue
        with suppress(DistillError, ValueError, TypeError, AttributeError):
            records.append(DriverRecord.from_json(run.store.read(run.path("drivers", name))))
    return tuple(sorted(records, key=lambda record: (record.started, record.id)))


@cache
def process_space() -> str:
    """Return what identifies the processes among which an id of a process is unique.

    That is a boot of a machine and a namespace of processes; empty where the kernel names neither.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def is_gone(record: DriverRecord) -> bool:
    """Return whether a driver ran beside this process, and its process has ended."""
    if not record.processes or record.processes != process_space():
        return False
    try:
        os.kill(record.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it belongs to another user
        return False
    return False
