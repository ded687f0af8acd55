"""The cost of failures: what counts against a job, what against its stage, and the results.

Two kinds of failure are kept apart. An error that a job's own code raises counts as an attempt of
that job. The loss of a worker (its process, its node) counts against a budget of the whole stage,
which starts anew whenever a job is finished. It costs the job nothing, except that a job which
keeps losing its worker is given up: a shard that crashes every process must not end the stage.
A full device is neither: the job is run once more, with smaller launches.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from distill_core.errors import (
    ClusterError,
    ConfigError,
    DivergedError,
    OutOfMemoryError,
    StorageRefused,
)
from distill_core.redaction import sanitised
from tasks.execution import RetryPolicy
from tasks.jobs import Job, Receipt

FINAL = (DivergedError, ConfigError, StorageRefused)  # another attempt would end the same way
OUT_OF_MEMORY_HINT = (
    "A second attempt, in a new process and split in two, did not fit either. Recover in smaller "
    "launches (--groups 1), give each worker more of a GPU (--num-gpus), use a larger GPU, or "
    "lower the stage's batch size (posttrain: micro_batch), which changes the result."
)


@dataclass(frozen=True)
class Failure:
    """The reason why a job was given up."""

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
    """The result of every job."""

    receipts: tuple[Receipt, ...]  # in order of arrival
    failed: dict[str, Failure]  # by shard
    losses: int = 0  # of workers, survived


class FailureCounts:
    """Counts the failures of a stage and decides whether a job is tried again.

    The methods that take a job return None if it is to be tried again, and otherwise the `Failure`
    with which it is given up.

    Args:
        policy: the limits.
        stage: its name, for messages.
        workers: how many the stage has; its budget of losses grows with them.
    """

    def __init__(self, policy: RetryPolicy, *, stage: str, workers: int) -> None:
        self._policy, self._stage = policy, stage
        self._budget = policy.losses_per_worker * workers
        self._attempts: Counter[str] = Counter()  # by job key
        self._losses_by_job: Counter[str] = Counter()  # by key of the job that was running
        self._losses_in_row = 0  # since a job was last finished
        self.losses = 0

    def job_finished(self) -> None:
        """Renew the budget of losses."""
        self._losses_in_row = 0

    def job_raised(self, job: Job[Any], error: Exception, traceback: str) -> Failure | None:
        """Count an attempt that ended with an error or at its deadline."""
        self._attempts[job.key] += 1
        count = self._attempts[job.key]
        if count < self._policy.max_attempts and not isinstance(error, FINAL):
            return None
        return Failure(count, error, traceback)

    def device_full(self, job: Job[Any], error: Exception, traceback: str) -> Failure | None:
        """Count an attempt that ran out of memory; a job that is split already is given up."""
        self._attempts[job.key] += 1
        if job.split == 1:
            return None
        hint = OutOfMemoryError(f"{error} {OUT_OF_MEMORY_HINT}")
        return Failure(self._attempts[job.key], hint, traceback)

    def worker_lost(self, job: Job[Any] | None, reason: str) -> Failure | None:
        """Count the loss of a worker, and of the job that it was running, if any.

        The losses of a job that is given up no longer count against the stage.
        """
        self.losses += 1
        self._losses_in_row += 1
        if job is None:
            return None
        self._losses_by_job[job.key] += 1
        count = self._losses_by_job[job.key]
        if count < self._policy.max_losses_per_job:
            return None
        self._losses_in_row = max(0, self._losses_in_row - count)
        message = f"{job.shard}: its worker was lost {count} times. The last loss: {reason}"
        return Failure(count, ClusterError(message), "")

    def check_budget(self, reason: str) -> None:
        """Refuse to go on after too many losses without a finished job in between.

        Raises:
            ClusterError: the budget is spent; the message contains the last reason.
        """
        if self._losses_in_row > self._budget:
            raise ClusterError(
                f"{self._stage}: workers were lost {self._losses_in_row} times while no job was "
                f"finished; {self._budget} losses are allowed. The last loss: {reason} "
                "Finished shards are kept. Check the cluster, then run `distill resume`."
            )


class RemoteTraceback(Exception):
    """Carries a worker's traceback as the cause of the exception raised here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def describe_error(error: BaseException) -> str:
    """Return the type and the message of an exception."""
    return sanitised(f"{type(error).__name__}: {error}")
