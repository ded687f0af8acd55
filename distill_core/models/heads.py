"""The classifier of a network, told apart from what computes its features."""

from __future__ import annotations

import torch
from torch import nn


def head_name(model: nn.Module) -> str:
    """Return the dotted name of the last linear layer, which gives the logits."""
    names: list[str] = [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear)
    ]
    if not names:
        raise TypeError(f"{type(model).__name__} has no linear layer, and so no head")
    return names[-1]


def split_head(model: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """Take a network apart into a backbone and a head.

    Args:
        model: a network of `distill_core.models.build`; its head is replaced by the identity.

    Returns:
        `model` itself, which now returns features (B, D), and the linear head D -> C.
    """
    name = head_name(model)
    head = model.get_submodule(name)
    assert isinstance(head, nn.Linear)
    model.set_submodule(name, nn.Identity())
    return model, head


@torch.no_grad()
def continue_from(model: nn.Module, weights: nn.Module) -> None:
    """Copy a network's weights and statistics into one of the same kind with more classes.

    Args:
        model: over C classes; its head's rows beyond C' stay as they are.
        weights: over C' <= C classes, the first of them.
    """
    target, source = model.state_dict(), weights.state_dict()
    for name, tensor in source.items():
        target[name][: len(tensor)].copy_(tensor) if tensor.ndim else target[name].copy_(tensor)
