"""The environment of a computation: flags of torch, versions of libraries, names of hardware.

It decides how results are rounded, and no key contains it. The flags are the same in every process
that computes; what differs between machines is recorded in the marker of every shard.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import Any

LIBRARIES = ("torch", "torchvision", "numpy", "pillow")  # pillow decodes and encodes images
_UNUSUAL = re.compile(r"[^ -~]+")
_LONGEST = 60  # characters of one value


def set_backend_flags() -> None:
    """Set what torch lets a process choose about the rounding of its operations.

    A GPU multiplies float32 in float32: with TF32, which torch allows for convolutions by default,
    `precision: float32` would have 10 bits of mantissa on some GPUs and 23 on others. `bfloat16` is
    the precision for speed. cuDNN chooses its algorithms by rules and not by measuring, because
    the fastest one differs from process to process. Deterministic algorithms are not required:
    results on a GPU are promised within a tolerance, and some would be several times as slow.
    """
    import torch

    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = False
    # With torch's newer `fp32_precision`, every later use of `torch.backends.cudnn.flags` and every
    # look at `allow_tf32` would be an error, in other libraries, too.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@cache
def made_with(device: str) -> dict[str, str]:
    """Return the versions and the hardware that a result on a device depends on.

    Args:
        device: cpu, cuda or cuda:N.
    """
    import torch

    found = {"python": platform.python_version(), "cpu": torch.backends.cpu.get_cpu_capability()}
    found |= {name: _version(name) for name in LIBRARIES}
    if torch.device(device).type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
        found["cuda"] = torch.version.cuda or "none"
        found["cudnn"] = str(torch.backends.cudnn.version() or "none")  # type: ignore[no-untyped-call]
    return {name: _plain(value) for name, value in sorted(found.items())}


def mixed(environments: Iterable[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """Return the facts in which environments differ, with their values; see `made_with`.

    An environment without any fact, of a shard of an older version, differs in nothing.
    """
    known = [environment for environment in environments if environment]
    names = sorted({name for environment in known for name in environment})
    values = {name: {environment.get(name, "none") for environment in known} for name in names}
    return {name: tuple(sorted(each)) for name, each in values.items() if len(each) > 1}


def describe_mixed(facts: Mapping[str, Sequence[str]]) -> str:
    """Return a result of `mixed` as text, such as ``cpu AVX2 and AVX512``."""
    return "; ".join(f"{name} {' and '.join(values)}" for name, values in facts.items())


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def _plain(value: Any) -> str:
    """Return a short text of printable ASCII; names come from drivers and package metadata."""
    return _UNUSUAL.sub("?", str(value))[:_LONGEST]
