"""The part of its machine that one worker may use, where several workers share the machine.

The machine is the host, or the container (control group) that limits this process. Pools tell their
workers how many they are, with `share_machine`; a process that no pool started has the machine for
itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from distill_core.errors import ConfigError

WORKERS = "DISTILL_WORKERS_PER_HOST"  # processes of pools that share the machine of this one
GPU_WORKERS = "DISTILL_WORKERS_PER_GPU"  # those that share its GPU
GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def share_machine(workers: int, *, gpu_workers: int = 1) -> None:
    """Limit this process, and the ones that it starts, to its part of the machine.

    Args:
        workers: processes that share the machine, this one included.
        gpu_workers: processes that share the GPU of this one, this one included.
    """
    os.environ |= {WORKERS: str(max(1, workers)), GPU_WORKERS: str(max(1, gpu_workers))}


def memory_share() -> int:
    """Return this worker's part of the memory of its machine, in bytes.

    Raises:
        ConfigError: `WORKERS` is not a positive integer.
    """
    return machine_memory() // _number(WORKERS)


def machine_memory() -> int:
    """Return the memory of the machine, in bytes, which all of its workers share."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    sizes += [int(text) for text in _limits("memory", "memory.max") if text.isdecimal()]
    sizes += [int(t) for t in _limits("memory", "memory.limit_in_bytes") if t.isdecimal()]
    return min(sizes)


def gpu_memory_share(size: int) -> int:
    """Return this worker's part of the memory of a GPU.

    Args:
        size: bytes of the GPU.

    Raises:
        ConfigError: `GPU_WORKERS` is not a positive integer.
    """
    return size // _number(GPU_WORKERS)


def cpu_share() -> int:
    """Return this worker's part of the CPUs of its machine, at least one.

    Raises:
        ConfigError: `WORKERS` is not a positive integer.
    """
    return max(1, usable_cpus() // _number(WORKERS))


def usable_cpus() -> int:
    """Return the CPUs that this process may use: by its affinity and the quota of its container."""
    # macOS has no affinities
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    counts = [float(affine or 1), *_cpu_quotas()]
    return max(1, int(min(counts)))


def _cpu_quotas() -> Iterator[float]:
    """Yield the CPUs that each control group allows: time to use over the length of a period."""
    for text in _limits("cpu", "cpu.max"):
        quota, _, period = text.partition(" ")
        if quota.isdecimal() and period.isdecimal():
            yield int(quota) / int(period)
    quotas, periods = _limits("cpu", "cpu.cfs_quota_us"), _limits("cpu", "cpu.cfs_period_us")
    for quota, period in zip(quotas, periods, strict=False):
        if quota.isdecimal() and period.isdecimal():  # -1: no limit
            yield int(quota) / int(period)


def _limits(controller: str, file: str) -> Iterator[str]:
    """Yield the contents of a file of every control group that this process is in.

    In a container the groups above its own are hidden, and its own is the root of the mount.
    """
    with suppress(OSError):
        for line in MEMBERSHIP.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            root = GROUPS / controller if controllers else GROUPS
            path = PurePosixPath(group.lstrip("/"))
            for folder in dict.fromkeys((path, *path.parents, PurePosixPath())):
                with suppress(OSError):
                    yield (root / folder / file).read_text().strip()


def _number(variable: str) -> int:
    text = os.environ.get(variable, "") or "1"
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{variable}: {text!r}, expected 1 or more. Correct it, or unset it.")
    return int(text)
