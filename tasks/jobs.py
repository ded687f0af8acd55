"""What travels between the driver and a worker: small, plain values that pickle anywhere.

Bytes of images and labels never do; a worker writes them to storage and sends a receipt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

P = TypeVar("P")  # the payload type of a stage


@dataclass(frozen=True)
class Job(Generic[P]):
    """The unit of retry: one shard of one stage."""

    key: str  # the shard's key in storage; unique within a stage
    shard: str  # its name for people
    payload: P  # a frozen value of the stage; pickled, below 1 MB
    split: int = 1  # 2 once a device was full: so many times smaller launches


@dataclass(frozen=True)
class Receipt:
    """What a worker sends back once a shard is committed."""

    key: str
    shard: str
    seconds: float = 0.0  # on the worker, storage included
    won: bool = True  # False: another worker had committed it already
    rows: int = 0
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerSpec:
    """How to build a worker in any process: an importable path and plain arguments.

    There are no large arguments: a worker loads its teacher from storage. That is why a restarted
    Ray actor comes back although nothing of its constructor is left in an object store.
    """

    factory: str  # "package.module:Class"
    kwargs: Mapping[str, Any] = field(default_factory=dict)  # JSON-able

    @property
    def name(self) -> str:
        """Return the class name."""
        return self.factory.partition(":")[2]


class Worker(Protocol):
    """A plain class that does one job at a time.

    It may also have ``peek() -> tuple[int, int] | None``: (done, total) of the current job, asked
    from another thread while `run` is busy.
    """

    def run(self, job: Job[Any]) -> Receipt:
        """Do a job, commit its result, and return the receipt."""
        ...
