"""The results of a dispatch: receipts, and failures with the tracebacks of their workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.jobs import Receipt


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
