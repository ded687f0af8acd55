"""Checks of the interpreter and the libraries: versions, imports, and the server of Prefect."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet

from flows.maintenance.findings import Check, Probe, fail, run_probe

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


def check_python(number: str | None = None) -> Check:
    """Check the version of the interpreter."""
    number = number or ".".join(str(part) for part in sys.version_info[:3])
    if PYTHONS.contains(number):
        return Check("python", "OK", number)
    return fail("python", number, "Use Python 3.11-3.13.")


def check_torch(run: Probe = run_probe) -> Check:
    """Check that torch imports, and on which devices it can compute."""
    facts = run(TORCH_PROBE)
    if isinstance(facts, str):
        return fail("torch", facts, "Install the locked requirements again.")
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


def check_prefect(run: Probe = run_probe) -> Check:
    """Check that Prefect's server can start here."""
    facts = run(PREFECT_PROBE)
    fix = "pip install 'prefect>=3.8.8,<3.9' 'fastapi>=0.139,<0.151'; or use --local."
    if isinstance(facts, str):
        return fail("prefect server", facts, fix)
    if not PREFECT.contains(facts["version"]):
        return Check("prefect server", "WARN", f"{facts['version']}; tested with {PREFECT}", fix)
    return Check("prefect server", "OK", str(facts["version"]))


def check_prefect_api(run: Probe = run_probe) -> Check:
    """Check that the server of PREFECT_API_URL, if it is set, answers and grants access."""
    facts = run(PREFECT_API_PROBE)
    problem = facts if isinstance(facts, str) else facts["problem"]
    if problem is not None:
        fix = "Without PREFECT_API_URL a run starts a temporary server; --local needs none."
        return fail("prefect api", problem.rstrip("."), fix)
    assert not isinstance(facts, str)
    return Check("prefect api", "OK", facts["address"] or "a temporary server per run")


def check_fastapi(number: str | None = None) -> Check:
    """Check for a version with which Prefect's server starts; pip allows others."""
    number = number or _version("fastapi")
    if number is not None and FASTAPI.contains(number):
        return Check("fastapi", "OK", number)
    detail = f"{number or 'not installed'}, Prefect's server needs {FASTAPI}"
    return fail("fastapi", detail, f"pip install 'fastapi{FASTAPI}'.")


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
        return fail("ray", facts, fix)
    if not RAY.contains(facts["version"]):
        return Check("ray", "WARN", f"{facts['version']}, tested with {RAY}", fix)
    mode = os.environ.get("RAY_AUTH_MODE", "chosen by distill for local clusters")
    return Check("ray", "OK", f"{facts['version']}, auth mode: {mode}")


def _has_nvidia() -> bool:
    return os.path.exists("/proc/driver/nvidia/version")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
