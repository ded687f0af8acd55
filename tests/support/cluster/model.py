"""The description of a simulated cluster: nodes, their faults, the store, and the jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from distill_core.errors import (
    DataError,
    DivergedError,
    MissingDataError,
    StorageError,
    StorageRefused,
)

Sickness = Literal["refused", "unmounted", "unreachable", "stale", "nan", "unbuilt"]
Nature = Literal[
    "good", "bad", "missing", "forbidden", "unanswered", "poison", "large", "huge", "hangs"
]

ERRORS: Mapping[Sickness, Callable[[], Exception]] = {
    "refused": lambda: StorageRefused("s3://bucket/x: cannot be written. Credentials expired."),
    "unmounted": lambda: MissingDataError("data.path: /data: no such folder. Check the path."),
    "unreachable": lambda: StorageError("s3://bucket/x: cannot be read (time-out)."),
    "stale": lambda: DataError("/data/a.png: not the image that was ingested."),
    "nan": lambda: DivergedError("the loss at step 7 is nan."),
    "unbuilt": lambda: ImportError("libcudnn.so.9: cannot open shared object file"),
}


@dataclass(frozen=True)
class Span:
    """A time from `start`, up to but not including `end`; seconds."""

    start: float
    end: float = inf

    def __contains__(self, time: float) -> bool:
        return self.start <= time < self.end


@dataclass(frozen=True)
class Illness:
    """A time in which every job on a node fails."""

    span: Span
    kind: Sickness
    at_commit: bool = False  # jobs fail when they write their result, not when they begin


@dataclass(frozen=True)
class Node:
    """A machine with a number of workers."""

    name: str
    workers: int = 1
    speed: float = 1.0
    away: tuple[Span, ...] = ()  # sorted, apart from each other; the first may start at 0
    ill: tuple[Illness, ...] = ()
    kills: tuple[float, ...] = ()  # times at which the process of its first worker is killed

    def illness(self, time: float) -> Illness | None:
        """Return what it suffers from at a time."""
        return next((illness for illness in self.ill if time in illness.span), None)


@dataclass(frozen=True)
class Work:
    """The truth about one job, which the dispatcher does not know."""

    seconds: float  # at speed 1
    checkpoint: float | None = None  # seconds of work between two; None: it starts anew
    nature: Nature = "good"
    times: int = 10**9  # how many attempts have this nature; the later ones are good
    after: float = 0.5  # share of the work before it fails, counted from its beginning


@dataclass(frozen=True)
class Scenario:
    """A cluster, its faults, and the stages of a run."""

    name: str
    nodes: tuple[Node, ...]
    stages: Mapping[str, tuple[Work, ...]]
    outages: tuple[Span, ...] = ()  # of the store
    deadline: float | None = None  # of each job
    keeps_results: bool = True  # a worker that could not commit keeps the bytes
    policy: Mapping[str, float] = field(default_factory=dict)  # settings that differ

    @property
    def workers(self) -> int:
        """Return how many workers all nodes have together."""
        return sum(node.workers for node in self.nodes)
