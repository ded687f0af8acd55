"""Checks of this machine: processor, shared memory, disk, and folders that have to be writable."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from distill_core.exit_codes import signal_name
from flows import units
from flows.maintenance.findings import Check, fail
from flows.runs.precision import SLOWER

FREE_BYTES = (1e9, 10e9)  # below the first a run fails, below the second it may fail
SHARED_MEMORY_BYTES = 256e6


def check_convolutions(facts: Mapping[str, Any], error: str | None = None) -> list[Check]:
    """Check that the convolutions of this project's networks compute the right gradients here.

    The second finding is about a kernel that no training reaches: see `distill_core.models.layout`.

    Args:
        facts: what `libraries.TORCH_PROBE` printed.
        error: how it failed.
    """
    fix = "Install the locked requirements again, or set ONEDNN_MAX_CPU_ISA=AVX; report the CPU."
    if "wrong" not in facts:
        return [fail("convolutions", f"gradients on this CPU: {error}", fix)]
    if facts["wrong"]:
        detail = f"wrong gradients on this CPU, for instance of {facts['wrong'][0]}"
        return [fail("convolutions", detail, fix)]
    permitted = f"the {facts['count']} kinds in use have the right gradients on this CPU"
    ended, excluded = facts["excluded"], "right on this CPU, too"
    if ended:
        how = f"end a process with {signal_name(ended)}" if ended < 0 else "are wrong"
        excluded = f"{how} on this CPU; no training computes them"
    return [
        Check("convolutions", "OK", permitted),
        Check(
            "excluded convolutions", "OK", f"narrow 1x1 with a stride, channels last: {excluded}"
        ),
    ]


def check_bfloat16(found: Set[str] | None) -> Check:
    """Check whether this CPU computes fast in bfloat16."""
    if found is None:
        return Check("bfloat16", "OK", "the instructions of this CPU are not known")
    if found:
        return Check("bfloat16", "OK", f"this CPU has {', '.join(sorted(found))}")
    detail = f"this CPU has no instructions for it, and is {SLOWER}"
    return Check("bfloat16", "WARN", detail, "Keep precision=float32 with --device cpu.")


def check_shared_memory(folder: str = "/dev/shm") -> Check:
    """Check the shared memory, which holds Ray's object store."""
    if not os.path.isdir(folder):
        return Check("shared memory", "OK", "not used on this system")
    free = shutil.disk_usage(folder).free
    detail = f"{units.size(free)} free in {folder}"
    if free < SHARED_MEMORY_BYTES:
        fix = "In a container, start it with --shm-size=1g; or use --local."
        return Check("shared memory", "WARN", detail, fix)
    return Check("shared memory", "OK", detail)


def check_disk(folder: Path, free: int | None = None) -> Check:
    """Check the free space of the disk that holds the store."""
    free = shutil.disk_usage(folder).free if free is None else free
    detail = f"{units.size(free)} free at {folder}"
    if free < FREE_BYTES[0]:
        return fail("disk", detail, "Free some space; `distill plan` estimates what a run needs.")
    if free < FREE_BYTES[1]:
        return Check("disk", "WARN", detail, "`distill plan` estimates what a run needs.")
    return Check("disk", "OK", detail)


def check_folders(environment: Mapping[str, str]) -> Check:
    """Check that Prefect, Ray and caches can write where they do by default.

    On a read-only root file system they wait for a long time, or fail without naming the folder.

    Args:
        environment: variables that may name other folders.
    """
    locked = {
        name: folder for name, folder in _folders(environment).items() if not _is_writable(folder)
    }
    if not locked:
        return Check(
            "folders", "OK", "those of HOME, Prefect, Ray and temporary files are writable"
        )
    detail = ", ".join(f"{name} ({folder})" for name, folder in locked.items())
    fix = "Mount an empty volume (tmpfs, emptyDir) there, or set the variable to another folder."
    return fail("folders", f"cannot be written: {detail}", fix)


def _folders(environment: Mapping[str, str]) -> dict[str, Path]:
    home = Path(environment.get("HOME") or os.path.expanduser("~"))
    temporary = Path(environment.get("TMPDIR") or "/tmp")
    return {
        "HOME": home,
        "PREFECT_HOME": Path(environment.get("PREFECT_HOME") or home / ".prefect"),
        "TMPDIR": temporary,
        "RAY_TMPDIR": Path(environment.get("RAY_TMPDIR") or "/tmp"),
    }


def _is_writable(folder: Path) -> bool:
    """Return whether a file can be made in a folder, or in the first that exists above it."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        tempfile.TemporaryFile(dir=folder).close()  # it has no name, or loses it at once
    except OSError:
        return False
    return True
