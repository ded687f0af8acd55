"""Checks of this machine and of a store: OK, WARN or FAIL, and a fix for the latter two.

Heavy libraries are imported in child processes, so that a broken one does not stop the checks.
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
FREE_BYTES = (1e9, 10e9)  # below the first a run fails, below the second it may fail
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
# Importing `prefect` works even where its server cannot start; importing its API does not.
PREFECT_PROBE = (
    "import json, prefect, prefect.server.api.server; "
    "print(json.dumps({'version': prefect.__version__}))"
)
PREFECT_API_PROBE = """
import json
from distill_core.errors import DistillError
from flows.orchestration import api
try:
    api.check_server()
    print(json.dumps({"address": api.server_address(), "problem": None}))
except DistillError as error:
    print(json.dumps({"address": None, "problem": str(error)}))
"""
# Without a cache per thread, glibc notices most writes past the end of a buffer and aborts.
CONVOLUTION_PROBE = """
import os, sys
os.environ["GLIBC_TUNABLES"] = "glibc.malloc.tcache_count=0"
os.execv(sys.executable, [sys.executable, "-m", "distill_core.models.layout_check"])
"""


@dataclass(frozen=True)
class Check:
    """The result of one check."""

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
    """Run every check, the slow imports in parallel.

    Args:
        store: folder or URL that a run would write to.
    """
    with ThreadPoolExecutor() as pool:
        slow = (check_torch, check_prefect, check_prefect_api, check_ray)
        imports = [pool.submit(check) for check in slow]
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


def check_python(number: str | None = None) -> Check:
    """Check the version of the interpreter."""
    number = number or ".".join(str(part) for part in sys.version_info[:3])
    if PYTHONS.contains(number):
        return Check("python", "OK", number)
    return _fail("python", number, "Use Python 3.11-3.13.")


def run_probe(code: str) -> dict[str, Any] | str:
    """Run code in a child process; return its JSON, or the last line of its error."""
    try:
        process = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=IMPORT_SECONDS,
            check=False,
            env=os.environ | {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {IMPORT_SECONDS} s"
    if process.returncode < 0:
        return f"ended with {describe_exit(process.returncode)}"
    if process.returncode != 0:
        return (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
    return dict(json.loads(process.stdout.strip().splitlines()[-1]))


def check_torch(run: Probe = run_probe) -> Check:
    """Check that torch imports, and on which devices it can compute."""
    facts = run(TORCH_PROBE)
    if isinstance(facts, str):
        return _fail("torch", facts, "Install the locked requirements again.")
    if facts["available"]:
        return Check("torch", "OK", f"{facts['version']}, CUDA: {', '.join(facts['devices'])}")
    if facts["cuda"] and _has_nvidia():
        return Check(
            "torch",
            "WARN",
            f"{facts['version']} is built for CUDA {facts['cuda']}, but no device responds",
            "Check the driver with nvidia-smi, or use --device cpu.",
        )
    return Check("torch", "OK", f"{facts['version']}, no CUDA device: use --device cpu")


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
    facts = run(PREFECT_PROBE)
    fix = "pip install 'prefect>=3.8.8,<3.9' 'fastapi>=0.139,<0.151'; or use --local."
    if isinstance(facts, str):
        return _fail("prefect server", facts, fix)
    if not PREFECT.contains(facts["version"]):
        return Check("prefect server", "WARN", f"{facts['version']}; tested with {PREFECT}", fix)
    return Check("prefect server", "OK", str(facts["version"]))


def check_prefect_api(run: Probe = run_probe) -> Check:
    """Check that the server of PREFECT_API_URL, if it is set, answers and grants access."""
    facts = run(PREFECT_API_PROBE)
    problem = facts if isinstance(facts, str) else facts["problem"]
    if problem is not None:
        fix = "Without PREFECT_API_URL a run starts a temporary server; --local needs none."
        return _fail("prefect api", problem.rstrip("."), fix)
    assert not isinstance(facts, str)
    return Check("prefect api", "OK", facts["address"] or "a temporary server per run")


def check_fastapi(number: str | None = None) -> Check:
    """Check for a version with which Prefect's server starts; pip allows others."""
    number = number or _version("fastapi")
    if number is not None and FASTAPI.contains(number):
        return Check("fastapi", "OK", number)
    detail = f"{number or 'not installed'}, Prefect's server needs {FASTAPI}"
    return _fail("fastapi", detail, f"pip install 'fastapi{FASTAPI}'.")


def check_sqlalchemy(number: str | None = None) -> Check:
    """Check for a version with which Prefect's schedules start runs; runs do not depend on it."""
    number = number or _version("sqlalchemy")
    if number is not None and SQLALCHEMY.contains(number):
        return Check("sqlalchemy", "OK", number)
    detail = f"{number or 'not installed'}, Prefect's schedules start runs only with {SQLALCHEMY}"
    return Check("sqlalchemy", "WARN", detail, f"pip install 'sqlalchemy{SQLALCHEMY}'.")


def check_ray(run: Probe = run_probe) -> Check:
    """Check that Ray imports and is the version the cluster image carries."""
    facts = run(RAY_PROBE)
    fix = "pip install 'ray[default,data,train]>=2.60,<2.61'; or use --local."
    if isinstance(facts, str):
        return _fail("ray", facts, fix)
    if not RAY.contains(facts["version"]):
        return Check("ray", "WARN", f"{facts['version']}, tested with {RAY}", fix)
    mode = os.environ.get("RAY_AUTH_MODE", "chosen by distill for local clusters")
    return Check("ray", "OK", f"{facts['version']}, auth mode: {mode}")


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
            return [_fail("store", f"{url}: s3fs is not installed", "pip install 'distill[s3]'.")]
        creates_once = probe(store)
    except DistillError as error:
        return [_fail("store", str(error).rstrip("."), "")]
    check = Check("store", "OK", f"{store.url}: writable, and refuses a second create")
    if not creates_once:
        fix = "Use another store, or --single-writer with one driver only."
        check = _fail("store", f"{store.url}: creates the same object twice", fix)
    return [check] if "://" in store.url else [check, check_disk(Path(store.url))]


def check_disk(folder: Path, free: int | None = None) -> Check:
    """Check the free space of the disk that holds the store."""
    free = shutil.disk_usage(folder).free if free is None else free
    detail = f"{units.size(free)} free at {folder}"
    if free < FREE_BYTES[0]:
        return _fail("disk", detail, "Free some space; `distill plan` estimates what a run needs.")
    if free < FREE_BYTES[1]:
        return Check("disk", "WARN", detail, "`distill plan` estimates what a run needs.")
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
