"""Settings of how and where jobs run.

None of them changes a result, so none of them is part of a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from distill_core.config.fields import HostAddress
from distill_core.naming.addresses import http_address
from tasks.jobs import WorkerMemory
from tasks.worker_range import AUTO, WorkerCount, WorkerRange, range_of

# Limits far above any use: a mistyped number is refused at once.
Count = Annotated[int, Field(gt=0, le=1_000_000)]
CountOrZero = Annotated[int, Field(ge=0, le=1_000_000)]
Resources = Annotated[float, Field(ge=0.0, le=10_000.0)]  # of one worker
Seconds = Annotated[float, Field(gt=0.0, le=1e9)]
Interval = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5} ?(steps?|minutes?)$")]


@dataclass(frozen=True)
class RetryPolicy:
    """Limits of the dispatcher: how long it waits, and how often it tries again."""

    in_flight: int = 2  # jobs per worker, the running one included
    max_attempts: int = 3  # per job; errors of the job itself and missed deadlines count
    ready_timeout_seconds: float = 300.0  # until the first worker is ready
    wait_for_workers_seconds: float = 1800.0  # without any worker, after there has been one
    outage_seconds: float = 1800.0  # of failures that may pass by themselves, without a success
    job_timeout_seconds: float | None = None  # from the start on a worker; None: no deadline
    losses_per_worker: int = 5  # in a row, of its process; then nothing is expected of it
    max_losses_per_job: int = 4  # losses of the worker that was running it
    max_failures_in_row: int = 2  # per worker; then it is rebuilt, as its device may be faulty
    tick_seconds: float = 1.0


class Placement(BaseModel):
    """Settings of one pass over a run, in any store; immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    local: bool = False  # without Prefect and Ray
    single_writer: bool = False  # allow a store without conditional create
    # A number: at most so many. MIN:MAX or auto: nodes may join, and MIN (1) of the workers must
    # have a place. None: as many as the cluster can hold; one if local.
    workers: WorkerCount = None
    device: Literal["cpu", "cuda"] = "cpu"
    num_cpus: Resources = 1.0  # Ray CPUs per worker, for scheduling; not a limit of use
    num_gpus: Resources | None = None  # Ray GPUs per worker; None: one on CUDA, else none
    # GB of memory per worker, for scheduling by Ray; None: as each stage is estimated, 0: none.
    memory_gb: Resources | None = None
    ray_address: HostAddress | None = None  # host:port or ray://...; None: start a local cluster
    # http://HEAD:8265: run as a job of the cluster; ray_address is then the job's, by default auto.
    submit: HostAddress | None = None
    groups: Count | None = None  # batches in one launch of recover; None: chosen by size
    in_flight: Count = 2
    max_attempts: Count = 3
    ready_timeout_seconds: Seconds = 300.0
    wait_for_workers_seconds: Seconds = 1800.0  # while all workers are lost
    outage_seconds: Seconds = 1800.0  # while the store is away
    job_timeout_seconds: Seconds | None = None
    # Between states of a teacher in training inside an epoch; None: only after whole epochs.
    checkpoint_every: Interval | None = None
    allow_missing: CountOrZero = 0  # failed shards without which later stages may run

    @field_validator("ray_address", "submit", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        """Treat an empty form field or environment variable as not set."""
        return None if value == "" else value

    @field_validator("submit")
    @classmethod
    def _check_jobs_address(cls, value: str | None, info: ValidationInfo) -> str | None:
        """Refuse what is no HTTP address, and a job that would not use its cluster."""
        if value is not None and info.data.get("local"):
            raise ValueError("local runs without Ray; leave out one of local and submit")
        return None if value is None else http_address(value, example="http://HEAD:8265")

    @field_validator("workers")
    @classmethod
    def _check_local(cls, value: int | str | None, info: ValidationInfo) -> int | str | None:
        """Refuse a range where no nodes can join."""
        if info.data.get("local") and isinstance(value, str):
            raise ValueError("nodes join clusters only; with local, set a number of processes")
        return value

    @field_validator("num_gpus")
    @classmethod
    def _check_schedulable(cls, value: float | None, info: ValidationInfo) -> float | None:
        """Refuse values for which a worker would wait for ever: Ray packs no other fractions."""
        if value is None:
            return None
        if value not in (0.0, 0.25, 0.5) and value != int(value):
            raise ValueError("use whole GPUs, 0.5 or 0.25: Ray cannot pack other fractions")
        if info.data.get("device") == "cuda" and value == 0 and not info.data.get("local"):
            raise ValueError("a worker on CUDA must reserve a part of a GPU; use 0.25 or more")
        return value

    @property
    def gpus(self) -> float:
        """Return the Ray GPUs per worker, with the default resolved."""
        if self.num_gpus is None:
            return 1.0 if self.device == "cuda" else 0.0
        return self.num_gpus

    @property
    def worker_range(self) -> WorkerRange:
        """Return how many workers a stage starts with, and how many it takes.

        No nodes join the Ray that a driver starts on its own machine.
        """
        span = range_of(self.workers)
        if self.ray_address is None and span.least is not None:
            return WorkerRange(None if self.workers == AUTO else span.most)
        return span

    def on_cpu(self) -> Self:
        """Return these settings for workers that use no GPU."""
        return self.model_copy(update={"device": "cpu", "num_gpus": 0.0})

    def policy(self) -> RetryPolicy:
        """Return the settings of the dispatcher."""
        return RetryPolicy(
            in_flight=self.in_flight,
            max_attempts=self.max_attempts,
            ready_timeout_seconds=self.ready_timeout_seconds,
            wait_for_workers_seconds=self.wait_for_workers_seconds,
            outage_seconds=self.outage_seconds,
            job_timeout_seconds=self.job_timeout_seconds,
        )


class Execution(Placement):
    """Settings of one pass over a run."""

    store: str  # folder or URL
    # Of the stage that is run; whoever runs it computes this, so it is no setting.
    worker_memory: WorkerMemory | None = Field(default=None, exclude=True)
