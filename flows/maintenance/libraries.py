"""Checks of the interpreter and the libraries: versions, imports, and the server of Prefect."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.specifiers import SpecifierSet

from flows.maintenance import accelerators
from flows.maintenance.findings import Check, Probe, fail, run_probe

PYTHONS = SpecifierSet(">=3.11,<3.14")
FASTAPI = SpecifierSet(">=0.139,<0.151")  # Prefect 3.8.8's server does not start on 0.155 and later
SQLALCHEMY = SpecifierSet(">=2.0,<2.1")  # with 2.1 the scheduler of Prefect 3.8.8 inserts nothing
RAY = SpecifierSet(">=2.60,<2.61")
PREFECT = SpecifierSet(">=3.8.8,<3.9")

# Two steps, so that a convolution that ends the process does not hide what torch has found.
TORCH_PROBE = """
import json, torch
devices = [
    {"name": torch.cuda.get_device_name(i), "capability": torch.cuda.get_device_capability(i)}
    for i in range(torch.cuda.device_count())
]
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "devices": devices,
    "available": torch.cuda.is_available(), "kernels": torch.cuda.get_arch_list()}), flush=True)
from distill_core.models import layout_check
layout_check.main()
"""
# Without a cache per thread, glibc notices most writes past the end of a buffer and aborts.
TORCH_ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
RAY_PROBE = "import json, ray; print(json.dumps({'version': ray.__version__}))"
# Importing `prefect` works even where its server cannot start; importing its API does not.
PREFECT_PROBE = """
import json, prefect
from distill_core.errors import DistillError
from flows.orchestration import api
found = {"version": prefect.__version__, "address": None, "problem": None}
try:
    found["address"] = api.server_address()
    api.check_server()
except DistillError as error:
    found["problem"] = str(error)
if not found["address"] and not found["problem"]:
    import prefect.server.api.server
print(json.dumps(found))
"""


def check_python(number: str | None = None) -> Check:
    """Check the version of the interpreter."""
    number = number or ".".join(str(part) for part in sys.version_info[:3])
    if PYTHONS.contains(number):
        return Check("python", "OK", number)
    return fail("python", number, "Use Python 3.11-3.13.")


def check_torch(facts: Mapping[str, Any], error: str | None = None) -> Check:
    """Check that torch imports, and on which devices it can compute.

    Args:
        facts: what `TORCH_PROBE` printed.
        error: how it failed.
    """
    if "version" not in facts:
        return fail("torch", error or "no answer", "Install the locked requirements again.")
    if facts["available"]:
        devices = ", ".join(device["name"] for device in facts["devices"])
        return Check("torch", "OK", f"{facts['version']}, CUDA: {devices}")
    if facts["cuda"] and os.path.exists(accelerators.DRIVER):
        return Check(
            "torch",
            "WARN",
            f"{facts['version']} is built for CUDA {facts['cuda']}, but no device responds",
            "Check the driver with nvidia-smi, or use --device cpu.",
        )
    return Check("torch", "OK", f"{facts['version']}, no CUDA device: use --device cpu")


def check_prefect(run: Probe = run_probe) -> list[Check]:
    """Check that the server of PREFECT_API_URL grants access, or that one can start here."""
    facts = run(PREFECT_PROBE)
    fix = "pip install 'prefect>=3.8.8,<3.9' 'fastapi>=0.139,<0.151'; or use --local."
    if isinstance(facts, str):
        return [fail("prefect", facts, fix)]
    number = str(facts["version"])
    library = Check("prefect", "OK", number)
    if not PREFECT.contains(number):
        library = Check("prefect", "WARN", f"{number}; tested with {PREFECT}", fix)
    if (problem := facts["problem"]) is not None:
        fix = "Without PREFECT_API_URL a run starts a temporary server; --local needs none."
        return [library, fail("prefect api", problem.rstrip("."), fix)]
    return [
        library,
        Check("prefect api", "OK", facts["address"] or "a temporary server per run"),
    ]


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


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
