"""The classification of failures: whose fault is an error?

The class alone decides what is assumed at first. Evidence corrects it later: a node that succeeds
with other jobs after a fault of its environment was not the cause, see `tasks.pools.verdicts`.
"""

from __future__ import annotations

from enum import Enum, auto

from distill_core.errors import (
    ChangedDataError,
    ClusterError,
    ConfigError,
    DistillError,
    DivergedError,
    MissingDataError,
    OutOfMemoryError,
    StorageRefused,
)


class Fault(Enum):
    """Whose fault an error is, until there is evidence of something else."""

    OUTAGE = auto()  # a service is away for a while: wait, with growing delay
    ENVIRONMENT = auto()  # the worker's machine: disks, mounts, credentials, clock, packages
    JOB = auto()  # the job itself: its data, its configuration, its numbers, a bug
    DEVICE = auto()  # the device is too small for the job
    LOSS = auto()  # a process or a node is gone


# Another attempt on the same machine would end the same way.
FINAL = (DivergedError, ConfigError, ChangedDataError)
_ENVIRONMENT = (StorageRefused, MissingDataError, OSError, ImportError, MemoryError)


def fault_of(error: BaseException) -> Fault:
    """Return whose fault an error is that a worker raised, while building itself or in a job."""
    if isinstance(error, OutOfMemoryError):
        return Fault.DEVICE
    if isinstance(error, ClusterError):
        return Fault.LOSS
    if isinstance(error, _ENVIRONMENT):
        return Fault.ENVIRONMENT
    return Fault.OUTAGE if is_retryable(error) else Fault.JOB


def is_retryable(error: BaseException) -> bool:
    """Return whether the cause of an error may pass by itself."""
    return isinstance(error, DistillError) and error.retryable
