"""The start of a network: every parameter is drawn from a generator of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from distill_core.seeds import derive_seed


def initialise(model: nn.Module, *, seed: int) -> None:
    """Fill every parameter and buffer of a network, in place, without the global generator.

    Raises:
        TypeError: a layer has tensors and no rule.
    """
    for prefix, module in model.named_modules():
        if _owns_tensors(module):
            _initialise(module, prefix, seed=seed)


def _owns_tensors(module: nn.Module) -> bool:
    tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return len(tensors) > 0


@torch.no_grad()
def _initialise(module: nn.Module, prefix: str, *, seed: int) -> None:
    """Fill one layer: He normal convolutions, identity norms, uniform linear layers.

    Source: arXiv:1502.01852, section 2.2 (fan out); linear layers as in torch.
    """

    def draws(name: str) -> torch.Generator:
        names = (*prefix.split("."), name)
        return torch.Generator().manual_seed(derive_seed(seed, "initialise", *names))

    match module:
        case nn.Conv2d():
            nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=draws("weight"))
            if module.bias is not None:
                module.bias.zero_()
        case nn.BatchNorm2d() | nn.GroupNorm():
            module.reset_parameters()  # constants only
        case nn.Linear():
            bound = 1 / math.sqrt(module.in_features)
            for name, tensor in module.named_parameters():
                _uniform(tensor, bound, draws(name))
        case _:
            raise TypeError(f"no rule for initialising a {type(module).__name__} ({prefix})")


def _uniform(tensor: Tensor, bound: float, generator: torch.Generator) -> None:
    nn.init.uniform_(tensor, -bound, bound, generator=generator)
