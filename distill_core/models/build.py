"""From a `ModelConfig` to a network whose start depends on a seed and on nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from distill_core.config.training import ModelConfig
from distill_core.errors import ConfigError
from distill_core.models.small import ConvNet, SmallResNet18
from distill_core.seeds import derive_seed

Builder = Callable[[int, int | None], nn.Module]  # (classes, width) -> network


def resnet18_small(num_classes: int, width: int | None) -> nn.Module:
    """Return ResNet-18 for small images; its first layer has `width` channels, 64 by default."""
    return SmallResNet18(num_classes, width=width or 64)


def convnet3(num_classes: int, width: int | None) -> nn.Module:
    """Return the plain network of depth 3, 128 channels wide by default."""
    return ConvNet(num_classes, depth=3, width=width or 128)


def convnet4(num_classes: int, width: int | None) -> nn.Module:
    """Return the plain network of depth 4, 128 channels wide by default."""
    return ConvNet(num_classes, depth=4, width=width or 128)


def resnet18(num_classes: int, width: int | None) -> nn.Module:
    """Return torchvision's ResNet-18, of one width."""
    return _from_torchvision("resnet18", num_classes, width)


def resnet50(num_classes: int, width: int | None) -> nn.Module:
    """Return torchvision's ResNet-50, of one width."""
    return _from_torchvision("resnet50", num_classes, width)


def mobilenet_v2(num_classes: int, width: int | None) -> nn.Module:
    """Return torchvision's MobileNetV2, of one width."""
    return _from_torchvision("mobilenet_v2", num_classes, width)


MODELS: Mapping[str, Builder] = {
    "resnet18_small": resnet18_small,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
    "convnet3": convnet3,
    "convnet4": convnet4,
}


def build_model(config: ModelConfig, num_classes: int, *, seed: int) -> nn.Module:
    """Return a network to train, in float32 on the CPU.

    Every parameter is drawn from a generator of its own, named by the parameter: the start depends
    on (`config`, `num_classes`, `seed`) alone, and the global generator is left as it was.

    Raises:
        ConfigError: a width was given to a network of one width.
    """
    model = skeleton(config, num_classes).to_empty(device="cpu")
    for prefix, module in model.named_modules():
        if _owns_tensors(module):
            _initialise(module, prefix, seed=seed)
    return model


def skeleton(config: ModelConfig, num_classes: int) -> nn.Module:
    """Return the network without storage (device ``meta``): its names and shapes.

    Raises:
        ConfigError: a width was given to a network of one width.
    """
    with torch.device("meta"):
        try:
            return MODELS[config.name](num_classes, config.width)
        except ValueError as error:
            raise ConfigError(f"model {config.name}: {error}") from None


def _from_torchvision(name: str, num_classes: int, width: int | None) -> nn.Module:
    if width is not None:
        raise ValueError(f"width = {width}, but this network has one width. Leave width out.")
    from torchvision import models  # slower to import than torch, and most workers need none of it

    model: nn.Module = getattr(models, name)(num_classes=num_classes)
    return model


def _owns_tensors(module: nn.Module) -> bool:
    tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return len(tensors) > 0


@torch.no_grad()
def _initialise(module: nn.Module, prefix: str, *, seed: int) -> None:
    """Fill one layer: He normal convolutions, identity norms, uniform linear layers.

    Source: arXiv:1502.01852, section 2.2 (fan out); linear layers as torch starts them.
    """

    def draws(name: str) -> torch.Generator:
        names = (*prefix.split("."), name)
        return torch.Generator().manual_seed(derive_seed(seed, "initialise", *names))

    match module:
        case nn.Conv2d():
            nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=draws("weight"))
            if module.bias is not None:
                module.bias.zero_()
        case nn.BatchNorm2d():
            module.reset_parameters()  # constants only
        case nn.Linear():
            bound = 1 / math.sqrt(module.in_features)
            for name, tensor in module.named_parameters():
                _uniform(tensor, bound, draws(name))
        case _:
            raise TypeError(f"no rule to start a {type(module).__name__} ({prefix})")


def _uniform(tensor: Tensor, bound: float, generator: torch.Generator) -> None:
    nn.init.uniform_(tensor, -bound, bound, generator=generator)
