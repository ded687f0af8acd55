"""Operations without a fake kernel in torch, and the shape that depends on values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def on_one_device(*tensors: Tensor | None) -> torch.device:
    """Return the device of some tensors.

    Raises:
        RuntimeError: they are on several.
    """
    devices = {tensor.device for tensor in tensors if tensor is not None}
    if len(devices) != 1:
        raise RuntimeError(f"Expected all tensors to be on the same device, found {devices}.")
    return devices.pop()


def batch_norm_update_stats(
    x: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    """Return moments of the shape and type of the running ones."""
    on_one_device(x, running_mean, running_var)
    assert running_mean.shape == running_var.shape == x.shape[1:2]
    return torch.empty_like(running_mean), torch.empty_like(running_var)


def fused_adam(
    parameters: list[Tensor],
    gradients: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    largest: list[Tensor],
    steps: list[Tensor],
    *,
    lr: Tensor,
    **_: object,
) -> None:
    """Change nothing; the learning rate is a tensor beside the parameters, as are the counts."""
    on_one_device(*parameters, *gradients, *first, *second, *largest, *steps, lr)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert parameter.shape == gradient.shape
        assert parameter.dtype == gradient.dtype


MISSING: Mapping[Any, Callable[..., Any]] = {
    aten.batch_norm_update_stats.default: batch_norm_update_stats,
    aten._fused_adam_.tensor_lr: fused_adam,
    aten._fused_adamw_.tensor_lr: fused_adam,
}


def distinct(x: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor, Tensor]:
    """Return as many values as there are numbers."""
    numbers = torch.zeros(x.numel(), dtype=torch.int64, device=x.device)
    return x.flatten(), numbers.view(x.shape), numbers


def positions(x: Tensor) -> Tensor:
    """Return the position of every number, as if none were zero."""
    return torch.zeros(x.numel(), x.dim(), dtype=torch.int64, device=x.device)


def counts(x: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """Return counts of numbers below `minlength`."""
    return torch.zeros(minlength, dtype=torch.int64, device=x.device)


def indexed(x: Tensor, indices: list[Tensor | None]) -> Tensor:
    """Return the elements that masks choose, as if they chose all."""
    every = []
    for index in indices:
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            every.append(index)
        else:
            every += list(positions(index).unbind(1))
    result: Tensor = aten.index(x, every)
    return result


SHAPED_BY_VALUES: Mapping[Any, Callable[..., Any]] = {
    aten._unique2.default: distinct,
    aten.nonzero.default: positions,
    aten.bincount.default: counts,
}
