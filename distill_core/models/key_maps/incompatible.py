"""Files of other programs whose tensors fit a network by no renaming, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from distill_core.config.training import ModelConfig


@dataclass(frozen=True)
class Incompatible:
    """A network of another program that has other constants or other layers under its names."""

    network: re.Pattern[str]  # name of the network here
    tensor: re.Pattern[str]  # a name in the file that only the other program uses
    description: str
    remedy: str


INCOMPATIBLE = (
    Incompatible(
        re.compile(r"^mobilenet_v3_(?P<size>small|large)$"),
        re.compile(r"^blocks\.0\.0\.conv_dw\.weight$"),
        "a MobileNetV3 of timm, whose batch norms add 1e-5 to the variance and torchvision's 1e-3",
        "Set squeeze.model.name=timm:mobilenetv3_{size}_100",
    ),
    Incompatible(
        re.compile(r"^efficientnet_(?P<size>b0)(_small)?$"),
        re.compile(r"^_blocks\.0\._depthwise_conv\.weight$"),
        "an EfficientNet of efficientnet_pytorch, which pads as TensorFlow does",
        "Set squeeze.model.name=timm:tf_efficientnet_{size}",
    ),
    Incompatible(
        re.compile(r"^timm:(?P<size>tresnet_\w+)"),
        re.compile(r"^body\.conv1\.(0|1)\."),
        "a TResNet with batch norms in place, of whose weights only the absolute value counts",
        "Use the weights that timm publishes for {size}, which are converted",
    ),
)


def incompatibility(config: ModelConfig, names: Iterable[str]) -> str | None:
    """Return why the tensors of a file cannot fit a network, and what to do; None: not known.

    Args:
        config: the network that the file does not match.
        names: of the tensors in the file, without the prefixes of trainers.
    """
    listed = list(names)
    for entry in INCOMPATIBLE:
        network = entry.network.match(config.name)
        tensor = next((name for name in listed if entry.tensor.match(name)), None)
        if network is not None and tensor is not None:
            remedy = entry.remedy.format(**network.groupdict())
            return f"{tensor!r} is a tensor of {entry.description}. {remedy}."
    return None
