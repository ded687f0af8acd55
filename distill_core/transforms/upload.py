"""Arrays and constants on the device that computes, without waiting for it.

A plain copy to a GPU lets the host wait until all earlier work there is done, so that in every step
of a training the GPU would run out of work. CUDA takes such data out of the host's memory before
the call returns, so the array may change or vanish at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def upload(array: np.ndarray, device: torch.device | str) -> Tensor:
    """Return an array on a device, in its own type; on a CPU it shares the array's memory."""
    return torch.from_numpy(array).to(device, non_blocking=True)


def constant(values: Sequence[float], like: Tensor) -> Tensor:
    """Return numbers with the type and the device of another tensor."""
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)
