"""Teachers with perturbed weights: each batch is recovered under a copy that was moved uphill.

Source: arXiv:2409.17612 (DWA), section 3.2, and its published code. Differs from the code: the move
starts from the stored weights for every batch, where the code lets moves accumulate over batches,
which makes images depend on the order of the classes; batch norm's own parameters stay.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distill_core.config.recovery_settings import PerturbConfig
from distill_core.models.layout import training_layout
from distill_core.models.teacher import FrozenTeacher


def perturbed(
    teacher: FrozenTeacher, pixels: Tensor, targets: Tensor, config: PerturbConfig
) -> FrozenTeacher:
    """Return a copy of a teacher that is `config.radius` away, where its loss on a batch is higher.

    Args:
        teacher: frozen; it is not changed.
        pixels: (B, 3, S, S) normalised, one view of the batch.
        targets: (B,) int64.
        config: number of moves, and their length together (L2, over all weights).
    """
    moved, layout = deepcopy(teacher), teacher.layout
    moved.lay_out(training_layout(moved.backbone, device=pixels.device, dtype=moved.input_dtype))
    weights = list(moved.parameters())
    for weight in weights:
        weight.requires_grad_(True)
    for _ in range(config.steps):
        loss = cross_entropy(moved(pixels).logits, targets)
        gradients = torch.autograd.grad(loss, weights)
        length = torch.stack([gradient.float().norm() for gradient in gradients]).norm()
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.add_(gradient / length, alpha=config.radius / config.steps)
    moved.requires_grad_(False).lay_out(layout)
    return moved
