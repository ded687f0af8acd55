"""Features rounded to codes, batch by batch, on the device of the teacher.

Axes: D features; leading axes are free.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distill_core.errors import DataError
from distill_core.storage.label_rows import Affine

TINY = torch.finfo(torch.float32).tiny  # of a level; below it, 1 / level would overflow
WHOLE = 3.0 * 2**22  # float32 this large have no fraction; their lowest byte is 0
CACHED = 2**16  # features that a CPU rounds at a time: they stay in its cache
GPU_BLOCK = 2**24  # features that a GPU rounds at a time: 64 MiB beside them


def quantise(features: Tensor, *, bits: int = 8) -> tuple[Tensor, Affine]:
    """Round every channel to 2^bits levels between its extremes over everything given.

    Args:
        features: (..., D) float32, at least one row, on any device.
        bits: 8, or 4: then two channels share a byte.

    Returns:
        (..., ceil(D * bits / 8)) uint8 on that device, and the map back. The error is at most half
        a level.

    Raises:
        DataError: a feature is not finite.
    """
    rows = features.reshape(-1, features.shape[-1])
    offset, top = rows.amin(0), rows.amax(0)
    span = top - offset
    _check(span, offset, top)
    scale = span / torch.full_like(span, 2**bits - 1)  # a GPU multiplies by 1 / number instead
    # A constant channel, or one so narrow that its step underflows, is its offset.
    scale[scale <= TINY] = 0
    steps = torch.where(scale > 0, scale.reciprocal(), 0.0)
    codes = _rounded(rows, offset, steps).view(features.shape)
    affine = Affine(scale.cpu().numpy(), offset.cpu().numpy(), bits)
    return (_packed(codes) if bits == 4 else codes), affine


def _check(span: Tensor, offset: Tensor, top: Tensor) -> None:
    """Raise a DataError for channels that no levels can cover."""
    finite = torch.isfinite(span)
    if not finite.all():
        bad = int(finite.int().argmin())
        raise DataError(
            f"features: channel {bad} spans {float(offset[bad])} to {float(top[bad])}, finite "
            f"values expected. Check the teacher's weights and its precision."
        )


def _rounded(rows: Tensor, offset: Tensor, steps: Tensor) -> Tensor:
    """Return the nearest levels of (N, D) features, uint8, block by block of rows.

    No code needs clipping. None is below 0, because no feature is below its offset. None is above
    the highest level, because rounding is monotonic (no difference exceeds `span`) and three
    roundings raise span * steps at most 4 parts in 2^24 above it, where it still rounds down.
    """
    limit = CACHED if rows.device.type == "cpu" else GPU_BLOCK
    step = max(1, limit // max(1, rows.shape[1]))
    codes, block = rows.new_empty(rows.shape, dtype=torch.uint8), rows.new_empty(rows[:step].shape)
    for part, into in zip(torch.split(rows, step), torch.split(codes, step), strict=True):
        scaled = torch.sub(part, offset, out=block[: len(part)]).mul_(steps)
        # The sum's last bits are the nearest whole number, ties to even; casting integers is
        # several times as fast.
        into.copy_(scaled.add_(WHOLE).view(torch.int32))
    return codes


def _packed(codes: Tensor) -> Tensor:
    """Return (..., D) codes below 16 two to a byte, the first in its low half."""
    if codes.shape[-1] % 2:
        codes = torch.cat([codes, torch.zeros_like(codes[..., :1])], dim=-1)
    pairs = codes.view(torch.int16)  # of bytes a and b: a + 256 b, and 4 bits down 16 b
    return (pairs | pairs >> 4).to(torch.uint8)
