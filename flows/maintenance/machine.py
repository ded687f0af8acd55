"""Checks of this machine and of a store: processor, shared memory, disk and conditional create."""

from __future__ import annotations

import os
import shutil
from collections.abc import Set
from importlib.util import find_spec
from pathlib import Path

from distill_core.errors import DistillError
from distill_core.exit_codes import signal_name
from distill_core.storage.store import Store, probe
from flows import units
from flows.maintenance.findings import Check, Probe, fail, run_probe
from flows.runs.precision import SLOWER

FREE_BYTES = (1e9, 10e9)  # below the first a run fails, below the second it may fail
SHARED_MEMORY_BYTES = 256e6

# Without a cache per thread, glibc notices most writes past the end of a buffer and aborts.
CONVOLUTION_PROBE = """
import os, sys
os.environ["GLIBC_TUNABLES"] = "glibc.malloc.tcache_count=0"
os.execv(sys.executable, [sys.executable, "-m", "distill_core.models.layout_check"])
"""


def check_convolutions(run: Probe = run_probe) -> list[Check]:
    """Check that the convolutions of this project's networks compute the right gradients here.

    The second finding is about a kernel that no training reaches: see `distill_core.models.layout`.
    """
    found = run(CONVOLUTION_PROBE)
    fix = "Install the locked requirements again, or set ONEDNN_MAX_CPU_ISA=AVX; report the CPU."
    if isinstance(found, str):
        return [fail("convolutions", f"gradients on this CPU: {found}", fix)]
    if found["wrong"]:
        detail = f"wrong gradients on this CPU, for instance of {found['wrong'][0]}"
        return [fail("convolutions", detail, fix)]
    permitted = f"the {found['count']} kinds in use have the right gradients on this CPU"
    ended, excluded = found["excluded"], "right on this CPU, too"
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


def check_store(url: str) -> list[Check]:
    """Check that the store can be written, creates an object only once, and has free space."""
    try:
        store = Store(url)
        if store.url.startswith("s3://") and find_spec("s3fs") is None:
            return [fail("store", f"{url}: s3fs is not installed", "pip install 'distill[s3]'.")]
        creates_once = probe(store)
    except DistillError as error:
        return [fail("store", str(error).rstrip("."), "")]
    check = Check("store", "OK", f"{store.url}: writable, and refuses a second create")
    if not creates_once:
        fix = "Use another store, or --single-writer with one driver only."
        check = fail("store", f"{store.url}: creates the same object twice", fix)
    return [check] if "://" in store.url else [check, check_disk(Path(store.url))]


def check_disk(folder: Path, free: int | None = None) -> Check:
    """Check the free space of the disk that holds the store."""
    free = shutil.disk_usage(folder).free if free is None else free
    detail = f"{units.size(free)} free at {folder}"
    if free < FREE_BYTES[0]:
        return fail("disk", detail, "Free some space; `distill plan` estimates what a run needs.")
    if free < FREE_BYTES[1]:
        return Check("disk", "WARN", detail, "`distill plan` estimates what a run needs.")
    return Check("disk", "OK", detail)
