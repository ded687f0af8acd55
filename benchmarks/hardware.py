"""What a result was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def hardware(device: str = "cpu") -> str:
    """Return processor, cores, memory and Python in one line; the GPU first where there is one."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = names[0] if names else platform.processor() or platform.machine()
    return (
        f"{_gpu(device)}{os.cpu_count()} cores of {name}, {memory:.0f} GiB, "
        f"Python {platform.python_version()}"
    )


def _gpu(device: str) -> str:
    if not device.startswith("cuda"):
        return ""
    import torch

    return f"one {torch.cuda.get_device_name(device)}, "
