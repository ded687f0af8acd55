"""Tools of the layers that measure their input: taking a layer's place, and measuring by group.

What measures is a module in place of the original layer, not a hook.

Axes: B images of all groups, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

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
    """
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, kind)]
    for number, (name, module) in enumerate(layers):
        model.set_submodule(name, make(module, number))
    return len(layers)
