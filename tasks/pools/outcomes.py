"""How patient a dispatch is, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.jobs import Receipt


@dataclass(frozen=True)
class RetryPolicy:
    """How patient the dispatcher is. Nothing here changes a result."""

    in_flight: int = 2  # jobs per worker, the running one included
    max_attempts: int = 3  # of one job, ended by an exception of its own or by the deadline
    ready_timeout_seconds: float = 300.0
    job_timeout_seconds: float | None = None  # from its start on a worker; None: no deadline
    losses_per_worker: int = 5  # times the workers: the budget between two finished jobs
    max_losses_per_job: int = 4  # of the worker that was running it
    max_failures_in_row: int = 2  # of one worker, then it is built anew: its device may be sick
    tick_seconds: float = 1.0


@dataclass(frozen=True)
class Failure:
    """Why a job was given up."""

    attempts: int
    error: Exception
    traceback: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {
            "attempts": self.attempts,
            "error": describe_error(self.error),
            "type": type(self.error).__name__,
            "traceback": self.traceback,
        }


@dataclass(frozen=True)
class DispatchResult:
    """What became of every job."""

    receipts: tuple[Receipt, ...]  # in the order in which they came
    failed: dict[str, Failure]  # by shard
    losses: int = 0  # infrastructure failures that were survived


class RemoteTraceback(Exception):
    """Carries a worker's traceback as the cause of the exception raised here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def describe_error(error: BaseException) -> str:
    """Return the type and the message of an exception."""
    return f"{type(error).__name__}: {error}"
