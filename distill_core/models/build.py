"""Building a network from a `ModelConfig`, and separating its head from its backbone.

The start of a network depends on a seed and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

import torch
from torch import Tensor, nn

from distill_core.config.training import CONVNET_WIDTH, RESNET18_SMALL_WIDTH, TIMM, ModelConfig
from distill_core.errors import ConfigError
from distill_core.models.efficientnet_lite import efficientnet_lite
from distill_core.models.initialise import initialise
from distill_core.models.small_networks import CifarResNet, ConvNet, Norm, SmallResNet18, WideResNet
from distill_core.models.timm_networks import timm_network
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


def _cifar_resnet(depth: int) -> Builder:
    """Return the builder of a `CifarResNet`."""

    def build(num_classes: int, width: int | None) -> nn.Module:
        _refuse_width(width)
        return CifarResNet(num_classes, depth=depth)

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
    "resnet20_small": _cifar_resnet(20),
    "resnet32_small": _cifar_resnet(32),
    "resnet44_small": _cifar_resnet(44),
    "resnet56_small": _cifar_resnet(56),
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
    "resnet34": _torchvision("resnet34"),
    "regnet_x_400mf": _torchvision("regnet_x_400mf"),
    "regnet_y_400mf": _torchvision("regnet_y_400mf"),
    "mobilenet_v3_small": _torchvision("mobilenet_v3_small"),
    "mobilenet_v3_large": _torchvision("mobilenet_v3_large"),
    "vgg11_bn": _torchvision("vgg11_bn"),
    "vgg16_bn": _torchvision("vgg16_bn"),
    "convnext_tiny": _torchvision("convnext_tiny"),
    "swin_t": _torchvision("swin_t"),
    "vit_b_16": _torchvision("vit_b_16"),
}
OWN_START = frozenset({"convnext_tiny", "swin_t", "vit_b_16"})  # their own code initialises them


def build_model(config: ModelConfig, num_classes: int, *, seed: int) -> nn.Module:
    """Return a network to train, in float32 on the CPU.

    The start depends only on (`config`, `num_classes`, `seed`), and the global generator is not
    used. Every parameter is drawn from its own generator, named by the parameter, except in
    networks with layers that `initialise` has no rule for: their own code draws all parameters
    from one generator.

    Raises:
        ConfigError: a width was given to a network of fixed width, or timm has no such network.
    """
    if config.name in OWN_START or config.name.startswith(TIMM):
        return _with_own_start(config, num_classes, seed=seed)
    model = skeleton(config, num_classes).to_empty(device="cpu")
    initialise(model, seed=seed)
    return model


def skeleton(config: ModelConfig, num_classes: int) -> nn.Module:
    """Return the network without storage (device ``meta``): its names and shapes.

    Raises:
        ConfigError: a width was given to a network of fixed width, or timm has no such network.
    """
    try:
        with torch.device("meta"):
            return _build(config, num_classes)
    except (NotImplementedError, RuntimeError):  # its constructor computes with tensors
        return _with_own_start(config, num_classes, seed=0).to("meta")


def with_weights(
    config: ModelConfig, num_classes: int, state: Mapping[str, Tensor], model: nn.Module
) -> nn.Module:
    """Return a network with weights, on their device and in their types.

    Args:
        config: the network.
        num_classes: C.
        state: every tensor of its state dict.
        model: its skeleton, which is filled where that is possible.

    Raises:
        RuntimeError: the weights belong to another network.
    """
    model.load_state_dict(dict(state), assign=True)
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        # Some tensors are computed by the constructor and stored nowhere.
        model = _with_own_start(config, num_classes, seed=0)
        model.load_state_dict(dict(state), assign=True)
    return model


def head_width(config: ModelConfig) -> int:
    """Return D, the width of the features that the head of a network reads."""
    model = skeleton(config, 2)
    head = model.get_submodule(head_name(model))
    assert isinstance(head, nn.Linear)
    return head.in_features


def _build(config: ModelConfig, num_classes: int) -> nn.Module:
    try:
        if config.name.startswith(TIMM):
            _refuse_width(config.width)
            return timm_network(config.name.removeprefix(TIMM), num_classes)
        return MODELS[config.name](num_classes, config.width)
    except ValueError as error:
        raise ConfigError(f"model {config.name}: {error}") from None


def _with_own_start(config: ModelConfig, num_classes: int, *, seed: int) -> nn.Module:
    """Return a network as its own code initialises it, from a generator of this seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "initialise", config.name))
        return _build(config, num_classes)


def same_tensors(config: ModelConfig, num_classes: int) -> tuple[ModelConfig, ...]:
    """Return the other networks of a family whose tensors have the same names and shapes.

    They have other first layers: strides and poolings have no tensors.
    """
    shapes = _shapes(skeleton(config, num_classes))
    others = [
        config.model_copy(update={"name": name})
        for name in MODELS
        if name != config.name and _family(name) == _family(config.name)
    ]
    found = []
    for other in others:
        with suppress(ConfigError):  # it has a fixed width
            if _shapes(skeleton(other, num_classes)) == shapes:
                found.append(other)
    return tuple(found)


def _family(name: str) -> str:
    return name.removesuffix("_small").removesuffix("_maxpool")


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def head_name(model: nn.Module) -> str:
    """Return the dotted name of the linear layer that computes the logits.

    Raises:
        TypeError: the network has none, or several heads.
    """
    names: list[str]
    if callable(classifier := getattr(model, "get_classifier", None)):  # of a network of timm
        names = [name for name, module in model.named_modules() if module is classifier()]
    else:  # of the others, the last one
        names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not names or not isinstance(model.get_submodule(names[-1]), nn.Linear):
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
