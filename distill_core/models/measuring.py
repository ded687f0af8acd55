"""Tools of the layers that measure their input: taking a layer's place, and measuring by group.

What measures is a module in place of the original layer, not a hook.

Axes: B images of all groups, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from distill_core.errors import ConfigError

COMPUTATIONS = ("forward", "_conv_forward")  # methods that decide what a layer returns
Replaced = TypeVar("Replaced", bound=nn.Module)
Measure = Callable[[Tensor, int], tuple[Tensor, ...]]


def by_group(measure: Measure, x: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Apply a measure of equal groups to groups of any sizes.

    Groups of different sizes are split, not padded and masked: padding would change the order of
    the sums, and with it the last bits of a group's result.

    Args:
        measure: of (B, ...) and the number of equal groups; its results start with an axis that
            grows with the groups or their images.
        x: (B, ...), group by group.
        sizes: images of each group; they sum to B.
    """
    if len(set(sizes)) == 1:
        return measure(x, len(sizes))
    parts = [measure(part, 1) for part in torch.split(x, list(sizes))]
    return tuple(torch.cat(together) for together in zip(*parts, strict=True))


def replace_modules(
    model: nn.Module, kind: type[Replaced], make: Callable[[Replaced, int], nn.Module]
) -> int:
    """Replace every module of a kind by `make(module, number)`, in place; return their number.

    Numbers follow registration order.

    Raises:
        ConfigError: a module is of a subclass that computes something else; nothing was replaced.
    """
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, kind)]
    for name, module in layers:
        _check_computes_as(kind, module, name)
    for number, (name, module) in enumerate(layers):
        model.set_submodule(name, make(module, number))
    return len(layers)


def _check_computes_as(kind: type[nn.Module], module: nn.Module, name: str) -> None:
    """Refuse a subclass with a computation of its own, which a replacement would drop."""
    changed = [
        part
        for part in COMPUTATIONS
        if getattr(type(module), part, None) is not getattr(kind, part, None)
    ]
    if changed or hasattr(module, "parametrizations"):
        ours = f"{type(module).__module__}.{type(module).__qualname__}"
        raise ConfigError(
            f"layer {name!r}: a {ours}, which computes something else than nn.{kind.__name__} and "
            "cannot be measured. Use a network without such layers, or one that pads and rescales "
            "in layers of their own."
        )
