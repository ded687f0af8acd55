"""Numbers and activations of the networks, for estimates of memory without building them.

Source: measured with torch 2.15 on a CPU, from the state dicts and from the tensors that autograd
keeps in a forward pass of `FrozenTeacher` with statistics in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distill_core.config.schema import RunConfig
from distill_core.config.training import (
    CONVNET_WIDTH,
    RESNET18_SMALL_WIDTH,
    TIMM,
    ModelConfig,
)
from flows.estimate.workload import feature_width


@dataclass(frozen=True)
class Footprint:
    """The size of a network, and of its activations per pixel of its input in float32."""

    numbers: float  # millions, of weights and statistics; in the table almost without the head
    kept: float  # bytes per pixel that a backward pass to the pixels needs
    largest: float  # bytes per pixel of the largest activation


FOOTPRINTS: Mapping[str, Footprint] = {
    "resnet18_small": Footprint(11.18, 4588, 256),
    "resnet18_maxpool_small": Footprint(11.18, 1732, 256),
    "resnet50_small": Footprint(23.57, 24908, 1024),
    "resnet101_small": Footprint(42.62, 37964, 1024),
    "densenet121_small": Footprint(7.04, 39340, 1024),
    "mobilenet_v2_small": Footprint(2.27, 18612, 576),
    "shufflenet_v2_x0_5_small": Footprint(0.36, 2480, 96),
    "efficientnet_b0_small": Footprint(4.06, 7061, 384),
    "resnet20_small": Footprint(0.27, 1532, 64),
    "resnet32_small": Footprint(0.47, 2428, 64),
    "resnet44_small": Footprint(0.66, 3324, 64),
    "resnet56_small": Footprint(0.86, 4220, 64),
    "wrn_16_2": Footprint(0.69, 1932, 128),
    "convnet1": Footprint(0.01, 1036, 512),
    "convnet2": Footprint(0.15, 1420, 512),
    "convnet3": Footprint(0.30, 1516, 512),
    "convnet4": Footprint(0.45, 1540, 512),
    "convnet3_instance": Footprint(0.30, 1519, 512),
    "convnet4_instance": Footprint(0.45, 1544, 512),
    "resnet18": Footprint(11.19, 442, 64),
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
    "resnet34": Footprint(21.31, 642, 64),
    "regnet_x_400mf": Footprint(5.14, 502, 32),
    "regnet_y_400mf": Footprint(3.93, 670, 48),
    "mobilenet_v3_small": Footprint(1.54, 322, 18),
    "mobilenet_v3_large": Footprint(4.24, 879, 64),
    "vgg11_bn": Footprint(128.82, 1563, 256),
    "vgg16_bn": Footprint(134.32, 2539, 256),
    "convnext_tiny": Footprint(27.83, 1149, 96),
    "swin_t": Footprint(27.56, 1279, 96),
    "vit_b_16": Footprint(85.81, 1475, 48),
}


def footprint(model: ModelConfig, classes: int) -> Footprint | None:
    """Return the size of a network; None: it is one of timm, which no table has.

    Activations grow with the width, numbers with its square and with the classes of the head.

    Args:
        model: the network.
        classes: C.
    """
    if model.name.startswith(TIMM):
        return None
    full, times = FOOTPRINTS[model.name], 1.0
    if model.width is not None:
        usual = CONVNET_WIDTH if model.name.startswith("convnet") else RESNET18_SMALL_WIDTH
        times = model.width / usual
    head = feature_width(model) * classes / 1e6
    return Footprint(full.numbers * times**2 + head, full.kept * times, full.largest * times)


def network_bytes(config: RunConfig) -> int:
    """Return the bytes of the teachers and students that a run stores, as far as they are known.

    A student is stored twice: its last weights and their average.
    """
    squeeze, post = config.squeeze, config.posttrain
    teachers = [squeeze.member(number).model for number in range(1 + len(squeeze.pool))]
    trainings = len(post.seeds) * len(post.sets)
    sizes = [(model, 1) for model in teachers]
    sizes += [(model, 2 * trainings) for model in post.students]
    known = [(footprint(model, config.data.num_classes), count) for model, count in sizes]
    return int(sum(4e6 * size.numbers * count for size, count in known if size is not None))
