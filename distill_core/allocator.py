"""Retention of freed memory by the C library.

A training step allocates and frees the same large buffers again and again. By default glibc returns
them to the system, which then has to map and clear every page anew in the next step.
"""

from __future__ import annotations

import ctypes
import os

MMAP_BYTES = 1 << 30  # larger allocations are returned when they are freed
TRIM_BYTES = 1 << 29  # free memory that stays with the process
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let this process keep up to 512 MiB of freed memory; return whether that was set.

    Nothing is set where the environment configures glibc's malloc, or with another C library.

    Source: measured with ResNet-18 of width 16 at 64 pixels and batches of 128, one thread: a
    training step has 0 page faults instead of 175,000, and 20 instead of 310 ms of system time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(os.environ.get(variable) for variable in VARIABLES):
        return False
    thresholds = (_MMAP_THRESHOLD, MMAP_BYTES), (_TRIM_THRESHOLD, TRIM_BYTES)
    return all(mallopt(name, value) == 1 for name, value in thresholds)
