"""Networks of timm, which is installed with ``distill[timm]`` and imported where one is named."""

from __future__ import annotations

import difflib
from importlib.util import find_spec
from typing import Any

from torch import nn

from distill_core.errors import ConfigError
from distill_core.models.efficientnet_lite import SamePad2d

NORM_WITH_ACTIVATION = "BatchNormAct2d"  # of timm: a batch norm and the activation behind it
PADDED_CONVOLUTION = "Conv2dSame"  # of timm: TensorFlow's padding and a convolution


def timm_network(name: str, num_classes: int) -> nn.Module:
    """Return a network of timm with its random start; nothing is downloaded.

    Args:
        name: of an architecture, and perhaps of its weights, e.g. ``convnext_tiny.in12k``; the
            weights decide nothing but the description that timm has of them.
        num_classes: C.

    Raises:
        ConfigError: timm is not installed, has no such network, or it has not one linear head.
    """
    model: Any = _timm(name).create_model(name, pretrained=False, num_classes=num_classes)
    if not isinstance(model.get_classifier(), nn.Linear):
        raise ConfigError(
            f"model timm:{name}: its head is not one linear layer, which labels stored as features "
            "need. Choose a network with one, e.g. without distillation token."
        )
    return model  # type: ignore[no-any-return]


def fixed_side(name: str) -> int | None:
    """Return the only size of image that a network of timm accepts, in pixels; None: any.

    Raises:
        ConfigError: as `timm_network`.
    """
    described = _timm(name).get_pretrained_cfg(name)
    if described is None or not described.fixed_input_size:
        return None
    return int(described.input_size[-1])


def split_layers(model: nn.Module) -> None:
    """Replace layers of timm that do two things by two layers, in place.

    These are batch norms that contain an activation, and convolutions that pad as TensorFlow does.
    They can then be measured like those of any network. The names of tensors change, so a network
    has its weights before.
    """
    for name, module in _of_timm(model, NORM_WITH_ACTIVATION):
        model.set_submodule(name, nn.Sequential(_plain_norm(module), module.drop, module.act))
    for name, module in _of_timm(model, PADDED_CONVOLUTION):
        if module.dilation == (1, 1):
            padding = SamePad2d(module.kernel_size[0], module.stride[0])
            model.set_submodule(name, nn.Sequential(padding, _plain_convolution(module)))


def _of_timm(model: nn.Module, kind: str) -> list[tuple[str, Any]]:
    """Return the modules of exactly one class of timm, by name."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if type(module).__name__ == kind and type(module).__module__.startswith("timm.")
    ]


def _plain_convolution(module: Any) -> nn.Conv2d:
    plain = nn.Conv2d(
        module.in_channels,
        module.out_channels,
        module.kernel_size,
        module.stride,
        groups=module.groups,
        bias=module.bias is not None,
        device="meta",
    )
    plain.weight, plain.bias = module.weight, module.bias
    return plain.train(module.training)


def _plain_norm(module: Any) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(module.num_features, eps=module.eps, momentum=module.momentum)
    norm.weight, norm.bias = module.weight, module.bias
    norm.running_mean, norm.running_var = module.running_mean, module.running_var
    norm.num_batches_tracked = module.num_batches_tracked
    return norm.train(module.training)


def _timm(name: str) -> Any:
    """Return the module timm, which knows a network of this name."""
    if find_spec("timm") is None:
        raise ConfigError(
            f"model timm:{name}: timm is not installed. Install it with `pip install "
            "'distill[timm]'`."
        )
    import timm

    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(f'timm:{one}' for one in close)}?" if close else ""
        raise ConfigError(
            f"model timm:{name}: timm {timm.__version__} has no such network. "
            f"{hint or 'timm.list_models() lists them.'}"
        )
    tags = timm.list_pretrained(f"{architecture}.*")
    if "." in name and name not in tags:
        close = difflib.get_close_matches(name, tags, n=3, cutoff=0.0)
        hint = f"Did you mean {' or '.join(f'timm:{one}' for one in close)}?" if close else ""
        raise ConfigError(
            f"model timm:{name}: timm {timm.__version__} has no such weights of {architecture}. "
            f"{hint or f'Write timm:{architecture}.'}"
        )
    return timm
