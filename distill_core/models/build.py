"""Building a network from a `ModelConfig`, and separating its head from its backbone.

The start of a network depends on a seed and on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress

import torch
from torch import Tensor, nn

from distill_core.config.training import CONVNET_WIDTH, RESNET18_SMALL_WIDTH, ModelConfig
from distill_core.errors import ConfigError
from distill_core.models.efficientnet_lite import efficientnet_lite
from distill_core.models.small_networks import ConvNet, Norm, SmallResNet18, WideResNet
from distill_core.models.torchvision_networks import torchvision_network
from distill_core.seeds import derive_seed

Builder = Callable[[int, int | None], nn.Module]  # (classes, width) -> network


def _small_resnet18(*, pool: bool = False) -> Builder:
    """Return the builder of a `SmallResNet18`."""
    return lambda num_classes, width: SmallResNet18(
        num_classes, width=width or RESNET18_SMALL_WIDTH, pool=pool
    )


def _convnet(depth: int, norm: Norm = "batch") -> Builder:
    """Return the builder of a `ConvNet`."""
    return lambda num_classes, width: ConvNet(
        num_classes, depth=depth, width=width or CONVNET_WIDTH, norm=norm
    )


def _torchvision(name: str, *, small: bool = False) -> Builder:
    """Return the builder of a network of torchvision."""

    def build(num_classes: int, width: int | None) -> nn.Module:
        _refuse_width(width)
        return torchvision_network(name, num_classes, small=small)

    return build


def _efficientnet_lite(name: str) -> Builder:
    """Return the builder of an EfficientNet-lite."""

    def build(num_classes: int, width: int | None) -> nn.Module:
        _refuse_width(width)
        return efficientnet_lite(name, num_classes)

    return build


def _wrn_16_2(num_classes: int, width: int | None) -> nn.Module:
    _refuse_width(width)
    return WideResNet(num_classes, depth=16, width=2)


def _refuse_width(width: int | None) -> None:
    if width is not None:
        raise ValueError(f"width = {width}, but this network has a fixed width. Remove width.")


MODELS: Mapping[str, Builder] = {
    # For images of 16 to 64 pixels
    "resnet18_small": _small_resnet18(),
    "resnet18_maxpool_small": _small_resnet18(pool=True),
    "resnet50_small": _torchvision("resnet50", small=True),
    "resnet101_small": _torchvision("resnet101", small=True),
    "densenet121_small": _torchvision("densenet121", small=True),
    "mobilenet_v2_small": _torchvision("mobilenet_v2", small=True),
    "shufflenet_v2_x0_5_small": _torchvision("shufflenet_v2_x0_5", small=True),
    "efficientnet_b0_small": _torchvision("efficientnet_b0", small=True),
    "wrn_16_2": _wrn_16_2,
    "convnet1": _convnet(1),
    "convnet2": _convnet(2),
    "convnet3": _convnet(3),
    "convnet4": _convnet(4),
    "convnet3_instance": _convnet(3, "instance"),
    "convnet4_instance": _convnet(4, "instance"),
    # For images of 224 pixels
    "resnet18": _torchvision("resnet18"),
    "resnet50": _torchvision("resnet50"),
    "resnet101": _torchvision("resnet101"),
    "densenet121": _torchvision("densenet121"),
    "mobilenet_v2": _torchvision("mobilenet_v2"),
    "shufflenet_v2_x0_5": _torchvision("shufflenet_v2_x0_5"),
    "shufflenet_v2_x1_0": _torchvision("shufflenet_v2_x1_0"),
    "efficientnet_b0": _torchvision("efficientnet_b0"),
    "efficientnet_lite0": _efficientnet_lite("efficientnet_lite0"),
    "efficientnet_lite1": _efficientnet_lite("efficientnet_lite1"),
    "efficientnet_lite2": _efficientnet_lite("efficientnet_lite2"),
    "alexnet": _torchvision("alexnet"),
}


def build_model(config: ModelConfig, num_classes: int, *, seed: int) -> nn.Module:
    """Return a network to train, in float32 on the CPU.

    Every parameter is drawn from its own generator, named by the parameter: the start depends only
    on (`config`, `num_classes`, `seed`), and the global generator is not used.

    Raises:
        ConfigError: a width was given to a network of fixed width.
    """
    model = skeleton(config, num_classes).to_empty(device="cpu")
    for prefix, module in model.named_modules():
        if _owns_tensors(module):
            _initialise(module, prefix, seed=seed)
    return model


def skeleton(config: ModelConfig, num_classes: int) -> nn.Module:
    """Return the network without storage (device ``meta``): its names and shapes.

    Raises:
        ConfigError: a width was given to a network of fixed width.
    """
    with torch.device("meta"):
        try:
            return MODELS[config.name](num_classes, config.width)
        except ValueError as error:
            raise ConfigError(f"model {config.name}: {error}") from None


def same_tensors(config: ModelConfig, num_classes: int) -> tuple[ModelConfig, ...]:
    """Return the other networks whose tensors have the same names and shapes."""
    shapes = _shapes(skeleton(config, num_classes))
    others = [config.model_copy(update={"name": name}) for name in MODELS if name != config.name]
    found = []
    for other in others:
        with suppress(ConfigError):  # it has a fixed width
            if _shapes(skeleton(other, num_classes)) == shapes:
                found.append(other)
    return tuple(found)


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


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


def head_name(model: nn.Module) -> str:
    """Return the dotted name of the last linear layer, which computes the logits."""
    names: list[str] = [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear)
    ]
    if not names:
        raise TypeError(f"{type(model).__name__} has no linear layer, and therefore no head")
    return names[-1]


def split_head(model: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """Split a network into a backbone and a head.

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
        model: over C classes; its head's rows beyond C' are unchanged.
        weights: over the first C' <= C of these classes.
    """
    target, source = model.state_dict(), weights.state_dict()
    for name, tensor in source.items():
        target[name][: len(tensor)].copy_(tensor) if tensor.ndim else target[name].copy_(tensor)
