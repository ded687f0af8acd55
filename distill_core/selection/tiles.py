"""Images that are mosaics, taken apart again.

Axes: B images, S x S pixels, f tiles per side.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate


def tiles_of(images: Tensor, factor: int) -> Tensor:
    """Cut images into tiles, row by row, each brought back to the side of an image, bilinear.

    Args:
        images: (B, 3, S, S).
        factor: tiles per side f, a divisor of S; 1 returns the images.

    Returns:
        (B f^2, 3, S, S), the tiles of an image adjacent.
    """
    if factor == 1:
        return images
    count, channels, side = images.shape[:3]
    small = side // factor
    cut = images.view(count, channels, factor, small, factor, small).permute(0, 2, 4, 1, 3, 5)
    flat = cut.reshape(count * factor**2, channels, small, small)
    return interpolate(flat, size=(side, side), mode="bilinear", align_corners=False)
