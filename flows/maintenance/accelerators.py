"""Checks of NVIDIA devices: the driver, the kernels in the wheel of torch, and a compiler."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.maintenance.findings import Check, fail

DRIVER = "/proc/driver/nvidia/version"  # of the host, in containers, too
DRIVER_VERSION = re.compile(r"Kernel Module(?:\s+for\s+\S+)?\s+(\d+)\.([\d.]+)")
OLDEST_DRIVERS = {12: 525, 13: 580}  # branch by major version of CUDA
SMI = ("nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader")
SMI_SECONDS = 4


def driver_version(file: str = DRIVER) -> str | None:
    """Return the version of the NVIDIA driver of this machine, or None without one."""
    try:
        found = DRIVER_VERSION.search(Path(file).read_text(encoding="utf-8"))
    except OSError:
        return None
    return None if found is None else f"{found[1]}.{found[2]}"


def capabilities() -> list[tuple[str, tuple[int, int]]]:
    """Return names and compute capabilities by nvidia-smi, which works where torch does not."""
    try:
        answer = subprocess.run(
            SMI, capture_output=True, text=True, timeout=SMI_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (line.rpartition(",") for line in answer.stdout.splitlines())
    return [
        (name.strip(), (int(major), int(minor)))
        for name, _, number in rows
        for major, _, minor in [number.strip().partition(".")]
        if major.isdecimal() and minor.isdecimal()
    ]


def check_driver(
    facts: Mapping[str, Any],
    driver: str | None,
    devices: Sequence[tuple[str, tuple[int, int]]],
) -> list[Check]:
    """Check that the driver is new enough for torch, and that torch has kernels for each device.

    Args:
        facts: version of CUDA and the kernels of torch's wheel, as `libraries.TORCH_PROBE` prints.
        driver: version of the driver; None: this machine has none, so nothing is checked.
        devices: names and compute capabilities; empty: not known.
    """
    if driver is None or not facts.get("cuda"):
        return []
    cuda = str(facts["cuda"])
    oldest = OLDEST_DRIVERS.get(int(cuda.partition(".")[0]), max(OLDEST_DRIVERS.values()))
    if int(driver.partition(".")[0]) < oldest:
        detail = f"NVIDIA driver {driver}, but CUDA {cuda} of torch needs {oldest} or newer"
        fix = f"Install driver R{oldest} or newer on the host, or use --device cpu."
        return [fail("driver", detail, fix)]
    kernels = list(facts.get("kernels") or [])
    without = [
        f"{name} (compute capability {major}.{minor})"
        for name, (major, minor) in devices
        if kernels and not has_kernels((major, minor), kernels)
    ]
    if without:
        detail = f"torch has kernels for {', '.join(kernels)}, not for {', '.join(without)}"
        fix = "Use a newer device, or a torch that is built for CUDA 12."
        return [fail("driver", detail, fix)]
    return [Check("driver", "OK", f"NVIDIA {driver} serves CUDA {cuda}")]


def has_kernels(capability: tuple[int, int], kernels: Sequence[str]) -> bool:
    """Return whether a device can run one of the kernels of a wheel, e.g. ``sm_90``.

    Kernels run on devices of the same major capability and the same or a higher minor one.
    ``compute_90`` is code that a driver compiles for every newer device.
    """
    for kernel in kernels:
        kind, _, digits = kernel.partition("_")
        number = re.sub(r"\D", "", digits)
        built = int(number[:-1]), int(number[-1])
        if kind == "compute" and built <= capability:
            return True
        if kind == "sm" and built[0] == capability[0] and built[1] <= capability[1]:
            return True
    return False


def check_compiler(
    environment: Mapping[str, str] = os.environ,
    which: Callable[[str], str | None] = shutil.which,
    headers: str | None = None,
) -> Check:
    """Check for a compiler and Python's headers, which configs with ``compile=true`` need.

    Args:
        environment: CC names the compiler that Triton uses on a GPU, CXX the one for the CPU.
        which: returns the path of a program, or None.
        headers: folder of Python.h; by default that of this interpreter.
    """
    wanted = {
        "a C compiler": (environment.get("CC") or "", "gcc", "clang"),
        "a C++ compiler": (environment.get("CXX") or "", "g++"),
    }
    missing = [kind for kind, names in wanted.items() if not any(n and which(n) for n in names)]
    folder = headers if headers is not None else sysconfig.get_paths()["include"]
    if not Path(folder, "Python.h").is_file():
        missing.append("Python's headers")
    if not missing:
        return Check("compiler", "OK", "compile=true can be used")
    detail = f"{' and '.join(missing)} not found; configs with compile=true need them"
    fix = "Install g++ and the headers of Python (Debian: g++, python3-dev), or keep compile=false."
    return Check("compiler", "WARN", detail, fix)
