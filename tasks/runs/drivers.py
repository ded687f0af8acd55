"""What each driver of a run is doing, in a file of its own: advisory, for people and `status`.

Markers alone say what is done. A driver that cannot write its file works on; one that was killed
leaves a file that says "running" and grows old, and so tells what it left unfinished.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal

from distill_core.errors import DistillError
from tasks.run import Run

STALE_SECONDS = 60.0  # without a beat: the driver is gone, or cannot reach the store


@dataclass(frozen=True)
class RunningShard:
    """A shard that a driver has on one of its workers."""

    stage: str
    shard: str
    since: str  # ISO 8601, UTC


@dataclass(frozen=True)
class DriverRecord:
    """What a driver says of itself; times are ISO 8601 by its own clock, in UTC."""

    id: str
    host: str
    pid: int
    device: str
    started: str
    updated: str
    state: Literal["running", "finished", "stopped"] = "running"
    reason: str = ""  # why it stopped: the kind of error
    stage: str | None = None  # that it is at, or was at last
    stage_started: str | None = None
    running: tuple[RunningShard, ...] = ()  # in order of their start
    done: int = 0  # shards that it committed, all stages
    workers: int = 0  # of this stage
    gpus_per_worker: float = 0.0  # of this stage; a gang counts as one worker
    # By stage, spent on shards, failed attempts and running ones included.
    worker_seconds: dict[str, float] = field(default_factory=dict)
    gpu_seconds: dict[str, float] = field(default_factory=dict)  # a share of a GPU counts as that

    def to_json(self) -> bytes:
        """Return the record as JSON."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> DriverRecord:
        """Read a record back; what a newer version added is passed over.

        Raises:
            ValueError, TypeError: it is no such record.
        """
        tree: dict[str, Any] = json.loads(data)
        known = {part.name: tree[part.name] for part in fields(cls) if part.name in tree}
        known["running"] = tuple(RunningShard(**shard) for shard in known.get("running", ()))
        record = cls(**known)
        moment(record.updated)
        return record

    def beats(self, now: datetime) -> bool:
        """Return whether the driver is at work: it says so, and said it lately."""
        silence = (now - moment(self.updated)).total_seconds()
        return self.state == "running" and silence < STALE_SECONDS

    def is_lost(self, now: datetime) -> bool:
        """Return whether the driver ended without a word: killed, or cut off from the store."""
        return self.state == "running" and not self.beats(now)


def moment(text: str) -> datetime:
    """Read a time; one without a zone is taken as UTC."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def text_of(when: datetime) -> str:
    """Write a time."""
    return when.isoformat(timespec="seconds")


def driver_path(run: Run, driver: str) -> str:
    """Return where the file of a driver stands."""
    return run.path("drivers", f"{driver}.json")


def read_drivers(run: Run) -> tuple[DriverRecord, ...]:
    """Return the drivers of a run, the first to start first; what is no record is left out."""
    found = []
    for name in run.store.names(run.path("drivers")):
        with suppress(DistillError, ValueError, TypeError, AttributeError):
            found.append(DriverRecord.from_json(run.store.read(run.path("drivers", name))))
    return tuple(sorted(found, key=lambda record: (record.started, record.id)))
