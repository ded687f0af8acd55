"""The failures of a stage: the reason why a job was given up, and the result of a stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distill_core.redaction import sanitised
from tasks.jobs import Job, Receipt
from tasks.pools.faults import is_retryable


@dataclass(frozen=True)
class Failure:
    """The reason why a job was given up."""

    attempts: int
    error: Exception
    traceback: str

    @property
    def retryable(self) -> bool:
        """Return whether the cause may pass by itself."""
        return is_retryable(self.error)

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
    """The result of every job."""

    receipts: tuple[Receipt, ...]  # in order of arrival
    failed: dict[str, Failure]  # by shard
    losses: int = 0  # of workers, survived
    left: tuple[Job[Any], ...] = ()  # to other drivers, which run them


class RemoteTraceback(Exception):
    """Carries a worker's traceback as the cause of the exception raised here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def describe_error(error: BaseException) -> str:
    """Return the type and the message of an exception."""
    return sanitised(f"{type(error).__name__}: {error}")
