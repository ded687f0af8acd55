"""The interface between the dispatcher and a pool of workers: the events and the `Pool` protocol.

A pool carries out the dispatcher's orders and reports events; it decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tasks.jobs import Job, Receipt

LOCAL_NODE = "local"  # the node of workers whose pool has no nodes
OnProgress = Callable[[str, int, int], None]  # (job key, units done, units in total)


@dataclass(frozen=True)
class Ready:
    """A worker was built, for the first time or after a loss, and takes jobs."""

    worker: int
    node: str = LOCAL_NODE  # where it runs now: an id or a host name


@dataclass(frozen=True)
class Broken:
    """A worker could not be built; its process is alive, and `restart` builds it again."""

    worker: int
    error: Exception
    traceback: str
    node: str = LOCAL_NODE  # where it failed


@dataclass(frozen=True)
class Done:
    """A job was committed."""

    worker: int
    receipt: Receipt


@dataclass(frozen=True)
class Raised:
    """The code of a job raised; the worker is alive."""

    worker: int
    key: str
    error: Exception
    traceback: str


@dataclass(frozen=True)
class Lost:
    """A worker's process or node is gone, with all its jobs in flight.

    The pool starts the worker again by itself and then reports `Ready`, as soon as there is a place
    for it. Until then the worker is absent, which is no further loss: a pool reports the end of a
    process once, and nothing while it waits for a node.
    """

    worker: int
    reason: str
    node_lost: bool = False  # the node is gone, so the job that was running is not the cause


Event = Ready | Broken | Done | Raised | Lost


class Pool(Protocol):
    """Workers, numbered from zero, each of which runs its jobs in the order given.

    Workers start without an order; the first event of each is `Ready`, `Broken` or `Lost`. Some may
    never start: the number of workers is a maximum, and a stage goes on with those that are there.
    One call of `wait` may return several events of one worker, in the order in which they happened,
    although the first of them makes the dispatcher restart the worker.
    """

    @property
    def workers(self) -> int:
        """Return the number of workers."""
        ...

    @property
    def present(self) -> int:
        """Return how many of them are there now, as far as the pool knows."""
        ...

    def submit(self, worker: int, job: Job[Any]) -> None:
        """Append a job to a worker's queue."""
        ...

    def wait(self, seconds: float, on_progress: OnProgress) -> Sequence[Event]:
        """Return the next events as soon as there are any, or none after that many seconds.

        A pool without processes of its own runs a job in here, however long that takes. A pool
        without anything to wait for sleeps: the dispatcher may hold jobs back for a while.
        `on_progress` is called before this returns, and never twice at the same time.
        """
        ...

    def restart(self, worker: int) -> None:
        """Kill a worker with all its jobs in flight and build it again.

        Its earlier events are no longer reported.
        """
        ...

    def describe(self) -> str:
        """Return the present workers or resources, for messages about workers that do not start."""
        ...

    def close(self) -> None:
        """Stop every worker now; a second call does nothing."""
        ...
