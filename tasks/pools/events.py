"""The seam between the dispatcher and whatever runs workers: this process, children, or Ray.

A pool only carries out orders and reports; every decision is the dispatcher's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tasks.jobs import Job, Receipt

OnProgress = Callable[[str, int, int], None]  # (job key, units done, units in total)


@dataclass(frozen=True)
class Ready:
    """A worker was built, or built anew after it was lost, and takes jobs."""

    worker: int


@dataclass(frozen=True)
class Broken:
    """A worker could not be built; its process lives, and `restart` tries again."""

    worker: int
    error: Exception
    traceback: str


@dataclass(frozen=True)
class Done:
    """A job was committed."""

    worker: int
    receipt: Receipt


@dataclass(frozen=True)
class Raised:
    """A job's own code raised; the worker lives."""

    worker: int
    key: str
    error: Exception
    traceback: str


@dataclass(frozen=True)
class Lost:
    """A worker's process or node is gone, and all its jobs in flight with it.

    The pool brings it back by itself and then reports `Ready`.
    """

    worker: int
    reason: str


Event = Ready | Broken | Done | Raised | Lost


class Pool(Protocol):
    """Workers, numbered from zero, each taking jobs one after the other in the order given.

    Every worker starts by itself; the first event of each is `Ready`, `Broken` or `Lost`.
    """

    @property
    def workers(self) -> int:
        """Return how many there are."""
        ...

    def submit(self, worker: int, job: Job[Any]) -> None:
        """Append a job to a worker's line."""
        ...

    def wait(self, seconds: float, on_progress: OnProgress) -> Sequence[Event]:
        """Return what happened, as soon as something did, or nothing after that many seconds.

        A pool without processes of its own does its work in here, and takes as long as that takes.
        `on_progress` is called before this returns, and never twice at the same time.
        """
        ...

    def restart(self, worker: int) -> None:
        """Kill a worker with all it has in flight and build it anew.

        Nothing that it did before is reported any more.
        """
        ...

    def describe(self) -> str:
        """Return in a few words what there is, for an error about workers that never came."""
        ...

    def close(self) -> None:
        """Stop every worker now; twice is fine."""
        ...
