"""A warning for runs whose precision this machine's CPU computes slowly.

The precision of a run is what its config states; nothing chooses another one (ADR 0028).
"""

from __future__ import annotations

import os
from collections.abc import Set
from pathlib import Path

from distill_core.config.fields import Precision
from distill_core.config.schema import RunConfig
from flows import terminal

INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}  # flags of x86, x86 and Arm
CPU_INFO = Path("/proc/cpuinfo")
LIMIT = "ONEDNN_MAX_CPU_ISA"  # the newest instructions that oneDNN may use
UNLIMITED = ("", "DEFAULT", "ALL")
# Measured with ResNet-18 at 32 pixels: 1.6 times with AVX-512, 6 to 24 times with AVX2.
SLOWER = "1.6 times (AVX-512) to 24 times (AVX2) as slow as in float32"


def bfloat16_instructions(info: Path = CPU_INFO, limit: str | None = None) -> frozenset[str] | None:
    """Return the bfloat16 instructions that convolutions can use; None if it is not known.

    Args:
        info: flags of the CPU as Linux lists them.
        limit: value of ``ONEDNN_MAX_CPU_ISA``; None reads the environment.
    """
    flags = _flags(info)
    if flags is None:
        return None
    limit = os.environ.get(LIMIT, "") if limit is None else limit
    return frozenset(flags & INSTRUCTIONS) if _allows_bfloat16(limit.upper()) else frozenset()


def slow_precision(precision: Precision, device: str, instructions: Set[str] | None) -> str | None:
    """Return a warning if a run is much slower in its precision than in float32, else None.

    Args:
        precision: of the run.
        device: where its stages compute.
        instructions: see `bfloat16_instructions`.
    """
    if precision != "bfloat16" or device != "cpu" or instructions is None or instructions:
        return None
    return (
        "precision=bfloat16: this CPU has no bfloat16 instructions (avx512_bf16 or amx_bf16), so "
        f"a step is {SLOWER}. Set precision=float32 (other shards), or use another CPU."
    )


def warn_if_slow(config: RunConfig, device: str) -> None:
    """Warn on stderr if this machine computes slowly in the precision of a run."""
    slow = slow_precision(config.precision, device, bfloat16_instructions())
    if slow is not None:
        terminal.warn(slow)


def _flags(info: Path) -> frozenset[str] | None:
    """Return the flags of the first CPU; None where no such file lists them."""
    try:
        lines = info.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(flags.split())
    return None


def _allows_bfloat16(limit: str) -> bool:
    """Return whether a limit of oneDNN leaves it instructions for bfloat16."""
    newer = ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX10")
    return limit in UNLIMITED or limit.startswith(newer)
