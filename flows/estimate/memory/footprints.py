"""Numbers and activations of the networks, for estimates of memory without building them.

Source: measured with torch 2.15 on a CPU, from the state dicts and from the tensors that autograd
keeps in a forward pass of `FrozenTeacher` with statistics in float32, or of a network in training.
Networks of timm are measured when they are needed, see `distill_core.models.footprint`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Footprint:
    """The size of a network, and of its activations per pixel of its input in float32."""

    numbers: float  # millions, of weights and statistics; in the table almost without the head
    kept: float  # bytes per pixel that a backward pass to the pixels needs
    largest: float  # bytes per pixel of the largest activation
    # bytes per pixel that a backward pass to the weights needs; None: as many as to the pixels
    to_weights: float | None = None
    live: float = 4  # largest activations that a forward pass without gradients holds, with copies

    @property
    def trained(self) -> float:
        """Return the bytes per pixel that a backward pass to the weights needs."""
        return self.kept if self.to_weights is None else self.to_weights


FOOTPRINTS: Mapping[str, Footprint] = {
    "resnet18_small": Footprint(11.18, 4588, 256, live=7),
    "resnet18_maxpool_small": Footprint(11.18, 1732, 256, live=2),
    "resnet50_small": Footprint(23.57, 24908, 1024),
    "resnet101_small": Footprint(42.62, 37964, 1024),
    "densenet121_small": Footprint(7.04, 39340, 1024),
    "mobilenet_v2_small": Footprint(2.27, 18612, 576),
    "shufflenet_v2_x0_5_small": Footprint(0.36, 2480, 96),
    "efficientnet_b0_small": Footprint(4.06, 7061, 384),
    "resnet20_small": Footprint(0.27, 1532, 64, live=7),
    "resnet32_small": Footprint(0.47, 2428, 64, live=7),
    "resnet44_small": Footprint(0.66, 3324, 64, live=7),
    "resnet56_small": Footprint(0.86, 4220, 64, live=7),
    "wrn_16_2": Footprint(0.69, 1932, 128),
    "convnet1": Footprint(0.01, 1036, 512, live=2),
    "convnet2": Footprint(0.15, 1420, 512, live=2),
    "convnet3": Footprint(0.30, 1516, 512, live=2),
    "convnet4": Footprint(0.45, 1540, 512, live=2),
    "convnet3_instance": Footprint(0.30, 1519, 512, live=2),
    "convnet4_instance": Footprint(0.45, 1544, 512, live=2),
    "resnet18": Footprint(11.19, 442, 64, live=2),
    "resnet50": Footprint(23.58, 1712, 64),
    "resnet101": Footprint(42.63, 2528, 64),
    "densenet121": Footprint(7.05, 2598, 64),
    "mobilenet_v2": Footprint(2.27, 1559, 96),
    "shufflenet_v2_x0_5": Footprint(0.36, 220, 24),
    "shufflenet_v2_x1_0": Footprint(1.28, 406, 24),
    "efficientnet_b0": Footprint(4.06, 1758, 96),
    "efficientnet_lite0": Footprint(3.43, 1638, 98),
    "efficientnet_lite1": Footprint(4.20, 2127, 98),
    "efficientnet_lite2": Footprint(4.88, 2233, 98),
    "alexnet": Footprint(57.04, 72, 15),
    "resnet34": Footprint(21.31, 642, 64, live=2),
    "regnet_x_400mf": Footprint(5.14, 502, 32),
    "regnet_y_400mf": Footprint(3.93, 670, 48),
    "mobilenet_v3_small": Footprint(1.54, 322, 18),
    "mobilenet_v3_large": Footprint(4.24, 879, 64),
    "vgg11_bn": Footprint(128.82, 1563, 256),
    "vgg16_bn": Footprint(134.32, 2539, 256),
    "convnext_tiny": Footprint(27.83, 1149, 96, 2175),
    "swin_t": Footprint(27.56, 1285, 96, 2125),
    "vit_b_16": Footprint(85.81, 1475, 48, 2355),
}
