"""A check of the device that workers compute on, before any of them starts."""

from __future__ import annotations

import warnings

from distill_core.errors import ConfigError
from tasks.execution import Execution


def check_device(execution: Execution) -> None:
    """Refuse CUDA where the workers run on this machine and it has no usable GPU.

    The workers of a cluster that is joined by its address run elsewhere: a driver needs no GPU
    there, and Ray's resources are checked before the actors start.

    Raises:
        ConfigError: there is no GPU.
    """
    elsewhere = not execution.local and execution.ray_address is not None
    if execution.device == "cpu" or elsewhere:
        return
    import torch

    with warnings.catch_warnings(action="ignore"):  # torch warns about a driver that is too old
        available = torch.cuda.is_available()
    if not available:
        raise ConfigError(
            f"device = {execution.device}: torch {torch.__version__} finds no GPU on this machine. "
            "Check `nvidia-smi` and `distill doctor`, use --device cpu, or name a cluster that has "
            "GPUs with --ray-address."
        )
