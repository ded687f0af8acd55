"""Terms on the pixels of the images.

Axes: B images, S x S pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from distill_core.recover.terms.forward import Forward

DENSITY_SIDE = 32  # pixels to which images are pooled before they are compared
DENSITY_TEMPERATURE = 4.0


def start_distance(forward: Forward) -> Tensor:
    """Return the mean squared difference between the images and their start, in the same view.

    Source: arXiv:2405.09150 (CUDD) and its published code.
    """
    assert forward.start is not None
    return functional.mse_loss(forward.pixels, forward.start)


def density(forward: Forward) -> Tensor:
    """Return how unevenly the images of each class fill their span; zero for single images.

    Per class: images pooled to 32 x 32, the eigenvalues l of their Gram matrix, and
    KL(softmax(l) || softmax(l / 4)); averaged over the classes of the batch.

    Source: arXiv:2311.17950 (G-VBSM), data densification. Differs from the published code: the
    eigenvalues are those of a symmetric matrix, and are divided by the pixels of an image, so that
    the softmax does not saturate at any resolution.
    """
    side = min(DENSITY_SIDE, forward.pixels.shape[-1])
    rows = functional.adaptive_avg_pool2d(forward.pixels, side).flatten(1)
    classes = torch.unique(forward.targets).tolist()
    return torch.stack([_unevenness(rows[forward.targets == c]) for c in classes]).mean()


def _unevenness(rows: Tensor) -> Tensor:
    if len(rows) < 2:
        return rows.sum() * 0.0
    spectrum = torch.linalg.eigvalsh(rows @ rows.T / rows.shape[1])
    sharp = functional.log_softmax(spectrum, dim=0)
    soft = functional.log_softmax(spectrum / DENSITY_TEMPERATURE, dim=0)
    return (sharp.exp() * (sharp - soft)).sum()
