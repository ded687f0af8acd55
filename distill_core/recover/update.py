"""How pixels change in a step: the optimiser of one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pixel_adam(
    leaves: Sequence[Tensor], *, lr: float, betas: tuple[float, float]
) -> torch.optim.Adam:
    """Return Adam over some images, in one kernel for all of them.

    On a GPU its state and its learning rate stay there, so that a recorded step finds them.

    Args:
        leaves: (B, 3, S, S) each, on one device; one without a gradient is left alone, its count
            of steps included.
        lr: at the first step.
        betas: of the two moments.
    """
    device = leaves[0].device
    capturable = device.type == "cuda"
    rate = torch.tensor(lr, device=device) if capturable else lr
    adam = torch.optim.Adam(leaves, lr=rate, betas=betas, fused=True, capturable=capturable)
    # The first steps, and all where nothing can be recorded, are taken outside on purpose.
    adam._warned_capturable_if_run_uncaptured = True
    return adam
