"""torchvision's networks, and their variants for images of 32 to 64 pixels.

The variants lack the first halvings of the side. Parameter names stay torchvision's, so
checkpoints of the usual CIFAR and Tiny-ImageNet variants load unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn


def torchvision_network(name: str, num_classes: int, *, small: bool = False) -> nn.Module:
    """Return a network of torchvision with its random start.

    Args:
        name: of the function in `torchvision.models`.
        num_classes: C.
        small: the variant for images of 32 to 64 pixels.
    """
    from torchvision import models  # slower to import than torch; most workers do without it

    model: nn.Module = getattr(models, name)(num_classes=num_classes)
    if small:
        SMALL_STEMS[name](model)
    return model


def _resnet(model: Any) -> None:
    """Give a ResNet a 3x3 stem of stride 1 and no max-pool, as DWA's and CV-DD's teachers have."""
    model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()


def _densenet(model: Any) -> None:
    """Give a DenseNet a 3x3 stem of stride 1 and no max-pool."""
    stem = model.features.conv0
    model.features.conv0 = nn.Conv2d(3, stem.out_channels, 3, padding=1, bias=False)
    model.features.pool0 = nn.Identity()


def _mobilenet_v2(model: Any) -> None:
    """Remove the stride of the stem and of the first stage that has one."""
    model.features[0][0].stride = (1, 1)
    model.features[2].conv[1][0].stride = (1, 1)


def _shufflenet_v2(model: Any) -> None:
    """Remove the stride of the stem, and the max-pool."""
    model.conv1[0].stride = (1, 1)
    model.maxpool = nn.Identity()


def _efficientnet(model: Any) -> None:
    """Remove the stride of the stem."""
    model.features[0][0].stride = (1, 1)


SMALL_STEMS: Mapping[str, Callable[[Any], None]] = {  # each changes a network in place
    "resnet50": _resnet,
    "resnet101": _resnet,
    "densenet121": _densenet,
    "mobilenet_v2": _mobilenet_v2,
    "shufflenet_v2_x0_5": _shufflenet_v2,
    "efficientnet_b0": _efficientnet,
}
