"""The messages between the driver and its workers: small, plain values that can be pickled.

They never contain images or labels; a worker writes those to storage and returns a receipt.
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
    split: int = 1  # 2 after the device ran out of memory: launches are divided by it


@dataclass(frozen=True)
class Receipt:
    """The answer of a worker once a shard is committed."""

    key: str
    shard: str
    seconds: float = 0.0  # on the worker, storage included
    won: bool = True  # False: another worker had committed it already
    rows: int = 0
    summary: dict[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()  # sentences about what did not stop the job
    requests: dict[str, int] = field(default_factory=dict)  # to buckets, by kind; failed jobs, too
    traffic: dict[str, int] = field(default_factory=dict)  # their bytes, read and written


@dataclass(frozen=True)
class WorkerMemory:
    """The memory that a worker needs on its node, in bytes."""

    needed: float  # an estimate, or a setting
    least: float  # without which it cannot work, however wrong the estimate is


@dataclass(frozen=True)
class WorkerSpec:
    """The description of a worker, from which any process can build it.

    Arguments are small: a worker loads its teacher from storage. So Ray can restart an actor even
    when the object store that held its arguments is lost.
    """

    factory: str  # "package.module:Class"
    kwargs: Mapping[str, Any] = field(default_factory=dict)  # JSON-able
    cpu_only: bool = False  # it uses no GPU, whatever device is set
    memory: WorkerMemory | None = None  # None: it is not known, or not to be declared

    @property
    def name(self) -> str:
        """Return the class name."""
        return self.factory.partition(":")[2]


class Worker(Protocol):
    """A plain class that does one job at a time.

    It may also have ``peek() -> tuple[int, int] | None``, which returns (done, total) of the
    current job and is called from another thread while `run` works.
    """

    def run(self, job: Job[Any]) -> Receipt:
        """Do a job, commit its result, and return the receipt."""
        ...
