"""Is this machine ready? One line per check: OK, WARN or FAIL, and for the latter two the fix.

Heavy libraries are imported in child processes only: a broken one cannot take the doctor along.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from packaging.specifiers import SpecifierSet

from distill_core.errors import DistillError
from distill_core.exit_codes import describe_exit, signal_name
from distill_core.storage.store import Store, probe
from flows import units
from flows.runs.precision import SLOWER, bfloat16_instructions

Level = Literal["OK", "WARN", "FAIL"]
IMPORT_SECONDS = 180
FREE_BYTES = (
    1e9,
    10e9,
)  # below the first a run will not finish, below the second it may not
SHARED_MEMORY_BYTES = 256e6
PYTHONS = SpecifierSet(">=3.11,<3.14")
FASTAPI = SpecifierSet(">=0.139,<0.151")  # Prefect 3.8.8's server does not start on 0.155 and later
SQLALCHEMY = SpecifierSet(">=2.0,<2.1")  # with 2.1 the scheduler of Prefect 3.8.8 inserts nothing
RAY = SpecifierSet(">=2.60,<2.61")
PREFECT = SpecifierSet(">=3.8.8,<3.9")

TORCH_PROBE = """
import json, torch
cuda = torch.cuda.is_available()
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "available": cuda,
    "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]}))
"""
RAY_PROBE = "import json, ray; print(json.dumps({'version': ray.__version__}))"
# `import prefect` works even where the server cannot start; its API module does not.
PREFECT_PROBE = (
    "import json, prefect, prefect.server.api.server; "
    "print(json.dumps({'version': prefect.__version__}))"
)
# Without a cache per thread, glibc notices most writes past the end of a buffer and aborts.
CONVOLUTION_PROBE = """
import os, sys
os.environ["GLIBC_TUNABLES"] = "glibc.malloc.tcache_count=0"
os.execv(sys.executable, [sys.executable, "-m", "distill_core.models.layout_check"])
"""


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    level: Level
    detail: str
    fix: str = ""

    def __str__(self) -> str:
        """Return e.g. ``WARN  disk: 3 GB free. Free some space.``"""
        return f"{self.level:<4}  {self.name}: {self.detail}." + (
            f" {self.fix}" if self.fix else ""
        )


Probe = Callable[[str], dict[str, Any] | str]


def examine(store: str) -> tuple[Check, ...]:
    """Run every check; the slow imports side by side.

    Args:
        store: folder or URL that a run would write to.
    """
    with ThreadPoolExecutor() as pool:
        imports = [pool.submit(check) for check in (check_torch, check_prefect, check_ray)]
        convolutions = pool.submit(check_convolutions)
        quick = [
            check_python(),
            check_bfloat16(bfloat16_instructions()),
            check_fastapi(),
            check_sqlalchemy(),
            check_shared_memory(),
            *check_store(store),
        ]
        torch, *others = [future.result() for future in imports]
        return (quick[0], torch, *convolutions.result(), *others, *quick[1:])


def check_python(found: str | None = None) -> Check:
    """Check the interpreter's version."""
    found = found or ".".join(str(part) for part in sys.version_info[:3])
    fine = PYTHONS.contains(found)
    return Check("python", "OK", found) if fine else _fail("python", found, "Use Python 3.11-3.13.")


def run_probe(code: str) -> dict[str, Any] | str:
    """Run code that prints JSON in a child process; return it, or the last line of its trouble."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=IMPORT_SECONDS,
            check=False,
            env=os.environ | {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {IMPORT_SECONDS} s"
    if done.returncode < 0:
        return f"ended with {describe_exit(done.returncode)}"
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def check_torch(run: Probe = run_probe) -> Check:
    """Check that torch imports, and say what it can compute on."""
    found = run(TORCH_PROBE)
    if isinstance(found, str):
        return _fail("torch", found, "Install the locked requirements again.")
    if found["available"]:
        return Check("torch", "OK", f"{found['version']}, CUDA: {', '.join(found['devices'])}")
    if found["cuda"] and _has_nvidia():
        return Check(
            "torch",
            "WARN",
            f"{found['version']} built for CUDA {found['cuda']}, but no device answers",
            "Check the driver with nvidia-smi, or use --device cpu.",
        )
    return Check("torch", "OK", f"{found['version']}, no CUDA device: use --device cpu")


def check_convolutions(run: Probe = run_probe) -> list[Check]:
    """Check that the convolutions of this project's networks compute the right gradients here.

    The second finding is about a kernel that no training reaches: see `distill_core.models.layout`.
    """
    found = run(CONVOLUTION_PROBE)
    fix = "Install the locked requirements again, or set ONEDNN_MAX_CPU_ISA=AVX; report the CPU."
    if isinstance(found, str):
        return [_fail("convolutions", f"gradients on this CPU: {found}", fix)]
    if found["wrong"]:
        detail = f"wrong gradients on this CPU, for instance of {found['wrong'][0]}"
        return [_fail("convolutions", detail, fix)]
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


def check_prefect(run: Probe = run_probe) -> Check:
    """Check that Prefect's server can start here."""
    found = run(PREFECT_PROBE)
    fix = "pip install 'prefect>=3.8.8,<3.9' 'fastapi>=0.139,<0.151'; or use --local."
    if isinstance(found, str):
        return _fail("prefect server", found, fix)
    where = os.environ.get("PREFECT_API_URL", "a temporary server per run")
    detail = f"{found['version']}, {where}"
    if not PREFECT.contains(found["version"]):
        return Check("prefect server", "WARN", f"{detail}; tested with {PREFECT}", fix)
    return Check("prefect server", "OK", detail)


def check_fastapi(found: str | None = None) -> Check:
    """Check for the version that Prefect's server needs, whatever pip allowed."""
    found = found or _version("fastapi")
    if found is not None and FASTAPI.contains(found):
        return Check("fastapi", "OK", found)
    detail = f"{found or 'not installed'}, Prefect's server needs {FASTAPI}"
    return _fail("fastapi", detail, f"pip install 'fastapi{FASTAPI}'.")


def check_sqlalchemy(found: str | None = None) -> Check:
    """Check for the version with which Prefect's schedules fire; runs do not depend on it."""
    found = found or _version("sqlalchemy")
    if found is not None and SQLALCHEMY.contains(found):
        return Check("sqlalchemy", "OK", found)
    detail = f"{found or 'not installed'}, Prefect's schedules fire only with {SQLALCHEMY}"
    return Check("sqlalchemy", "WARN", detail, f"pip install 'sqlalchemy{SQLALCHEMY}'.")


def check_ray(run: Probe = run_probe) -> Check:
    """Check that Ray imports and is the version the cluster image carries."""
    found = run(RAY_PROBE)
    fix = "pip install 'ray[default,data,train]>=2.60,<2.61'; or use --local."
    if isinstance(found, str):
        return _fail("ray", found, fix)
    if not RAY.contains(found["version"]):
        return Check("ray", "WARN", f"{found['version']}, tested with {RAY}", fix)
    mode = os.environ.get("RAY_AUTH_MODE", "chosen by distill for local clusters")
    return Check("ray", "OK", f"{found['version']}, auth mode: {mode}")


def check_shared_memory(folder: str = "/dev/shm") -> Check:
    """Check the room that Ray's object store has."""
    if not os.path.isdir(folder):
        return Check("shared memory", "OK", "not used on this system")
    free = shutil.disk_usage(folder).free
    detail = f"{units.size(free)} free in {folder}"
    if free < SHARED_MEMORY_BYTES:
        fix = "In a container, start it with --shm-size=1g; or use --local."
        return Check("shared memory", "WARN", detail, fix)
    return Check("shared memory", "OK", detail)


def check_store(url: str) -> list[Check]:
    """Check that the store can be written, arbitrates, and has room."""
    if url.startswith("s3://") and find_spec("s3fs") is None:
        return [_fail("store", f"{url}: s3fs is not installed", "pip install 'distill[s3]'.")]
    try:
        store = Store(url)
        arbitrates = probe(store)
    except DistillError as error:
        return [_fail("store", str(error).rstrip("."), "")]
    found = Check("store", "OK", f"{store.url}: writable, and refuses a second create")
    if not arbitrates:
        fix = "Use another store, or --single-writer with one driver only."
        found = _fail("store", f"{store.url}: lets the same object be created twice", fix)
    return [found] if "://" in store.url else [found, check_disk(Path(store.url))]


def check_disk(folder: Path, free: int | None = None) -> Check:
    """Check the free space where the store is."""
    free = shutil.disk_usage(folder).free if free is None else free
    detail = f"{units.size(free)} free at {folder}"
    if free < FREE_BYTES[0]:
        return _fail("disk", detail, "Free some space; `distill plan` says what a run writes.")
    if free < FREE_BYTES[1]:
        return Check("disk", "WARN", detail, "`distill plan` says what a run writes.")
    return Check("disk", "OK", detail)


def worst(checks: Sequence[Check]) -> Level:
    """Return the worst level of some checks."""
    order: tuple[Level, ...] = ("OK", "WARN", "FAIL")
    return max((check.level for check in checks), key=order.index, default="OK")


def _fail(name: str, detail: str, fix: str) -> Check:
    return Check(name, "FAIL", detail, fix)


def _has_nvidia() -> bool:
    return os.path.exists("/proc/driver/nvidia/version")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
