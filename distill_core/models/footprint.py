"""The memory of a network and its activations, from its shapes: nothing is allocated or computed.

It runs forward on torch's device ``meta``, whose tensors have no values, and counts the tensors
that autograd keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from distill_core.config.training import ModelConfig
from distill_core.models.build import skeleton

IMAGES = 2  # of the forward pass: batch norm cannot train on one image


@dataclass(frozen=True)
class MeasuredFootprint:
    """The size of a network, and of its activations per pixel of its input in float32."""

    numbers: int  # of weights and statistics
    kept: float  # bytes per pixel that a backward pass to the pixels needs
    largest: float  # bytes per pixel of the largest activation
    trained: float  # bytes per pixel that a backward pass to the weights needs


class _FusedAttention(TorchFunctionMode):
    """Attention as devices compute it, without its matrix of weights, which ``meta`` would keep."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is scaled_dot_product_attention:
            fused: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
            return fused(*args[:3])[0]
        return func(*args, **(kwargs or {}))


def measure_footprint(model: ModelConfig, classes: int, *, side: int) -> MeasuredFootprint:
    """Return the footprint of a network.

    Args:
        model: the network.
        classes: C.
        side: S of its images in pixels.

    Raises:
        ConfigError: timm is not installed, or has no such network.
        RuntimeError: its code needs values.
    """
    network = skeleton(model, classes).to(memory_format=torch.channels_last)
    numbers = sum(tensor.numel() for tensor in network.state_dict().values())
    trained, _ = _kept(network.train(), side=side)
    kept, largest = _kept(network.eval().requires_grad_(False), side=side)
    return MeasuredFootprint(numbers, kept, largest, trained)


def _kept(network: nn.Module, *, side: int) -> tuple[float, float]:
    """Return the bytes per pixel of all tensors that a backward pass needs, and of the largest."""
    own = {t.untyped_storage()._cdata for t in (*network.parameters(), *network.buffers())}
    sizes: dict[int, int] = {}
    held: list[Tensor] = []  # so that no storage is freed and its number used again

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            sizes[storage._cdata] = storage.nbytes()
        held.append(tensor)
        return tensor

    images = torch.empty(IMAGES, 3, side, side, device="meta", requires_grad=True)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, _FusedAttention():
        network(images)
    pixels = IMAGES * side**2
    return sum(sizes.values()) / pixels, max(sizes.values()) / pixels
