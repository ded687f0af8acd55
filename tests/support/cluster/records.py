"""The records of a simulation: virtual time, what happened to jobs, and the state of workers."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from tasks.jobs import Job
from tests.support.cluster.model import Node


class Clock:
    """Virtual time."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Ledger:
    """What happened to the jobs of all stages."""

    committed: dict[str, float] = field(default_factory=dict)  # time, by key
    saved: dict[str, float] = field(default_factory=dict)  # seconds of work in checkpoints, by key
    attempts: Counter[str] = field(default_factory=Counter)  # begun, by key
    last_first_attempt: float = 0.0  # time
    begun_after_commit: list[str] = field(default_factory=list)
    computed: float = 0.0  # seconds of work at speed 1
    useful: float = 0.0  # seconds of work of what was committed
    in_flight: float = 0.0  # seconds of work that faults destroyed
    discarded: float = 0.0  # seconds of work that the dispatcher destroyed
    interruptions: list[float] = field(default_factory=list)  # times at which a fault hit a job
    failures: Counter[str] = field(default_factory=Counter)  # of jobs, on ill nodes, by node


@dataclass
class Place:
    """One worker of the simulation."""

    number: int
    node: Node
    version: int = 0  # of its process; events of an earlier one are void
    ready: bool = False
    queue: deque[Job[Any]] = field(default_factory=deque)  # the first one runs
    begun: float = 0.0
    base: float = 0.0  # seconds of work that the attempt started from
    computing: bool = False
    kept: dict[str, float] = field(default_factory=dict)  # seconds of work, by key, of results
    # that could not be committed
