"""Terms that compare the features of each image with those of real ones.

The target of an image follows from its place in its class alone (its ipc_index).

Axes: B images, T = f^2 tiles of an image, D features.
"""

from __future__ import annotations

from torch import Tensor
from torch.linalg import vector_norm

from distill_core.recover.terms.forward import Forward


def feature_barycentre(forward: Forward) -> Tensor:
    """Return ||features - points||_2 over the whole batch, where each image has a point of its own.

    The points of a class are the barycentre of the features of its real images, see
    `distill_core.statistics.barycentre`.

    Source: arXiv:2311.18531 (WMDD), section 3.3, and its published code. Differs from it: batch
    statistics are not weighted by the shares of the points.
    """
    gap = forward.teacher.features - forward.features["feature_barycentre"]
    distance: Tensor = vector_norm(gap)
    return distance


def feature_originals(forward: Forward) -> Tensor:
    """Return the mean absolute difference between tiles and originals, summed over the tiles.

    A tile is brought to the side of an image; compared are its activations at the input of one
    convolution, pooled to a small grid, with those of the real image that it began as.

    Source: CIM (ECCV 2026), its published code. Differs from it: the features of the originals are
    computed once, unaugmented, where the code shows tile and original under one random view at
    every step; they are pooled. Images stay in the valid box, the update is Adam's without decay.
    """
    features = forward.teacher.convolutions.features
    assert features is not None
    return (features - forward.features["feature_originals"]).abs().mean(dim=1).sum()
