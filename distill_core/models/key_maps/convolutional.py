"""Tables of names of convolutional networks.

Source: the state dicts of timm 1.0 and torchvision 0.28 themselves, and of efficientnet_pytorch as
its repository publishes them. A test compares the outputs of both networks for every table of timm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from distill_core.models.key_maps.key_map import KeyMap, Modules, inside, numbered

# Inverted residual blocks: without and with an expansion, by timm's names.
SQUEEZE = {"se.conv_reduce": "fc1", "se.conv_expand": "fc2"}
MOBILENET_V2_FIRST = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
MOBILENET_V2_BLOCK = {
    "conv_pw": "0.0",
    "bn1": "0.1",
    "conv_dw": "1.0",
    "bn2": "1.1",
    "conv_pwl": "2",
    "bn3": "3",
}
EFFICIENTNET_FIRST = {
    "conv_dw": "0.0",
    "bn1": "0.1",
    **{theirs: f"1.{ours}" for theirs, ours in SQUEEZE.items()},
    "conv_pw": "2.0",
    "bn2": "2.1",
}
EFFICIENTNET_BLOCK = {
    "conv_pw": "0.0",
    "bn1": "0.1",
    "conv_dw": "1.0",
    "bn2": "1.1",
    **{theirs: f"2.{ours}" for theirs, ours in SQUEEZE.items()},
    "conv_pwl": "3.0",
    "bn3": "3.1",
}
EFFICIENTNET_PYTORCH_FIRST = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
EFFICIENTNET_PYTORCH_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
EFFICIENTNET_PYTORCH_ENDS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
REGNET_BLOCK = {
    "conv1.conv": "f.a.0",
    "conv1.bn": "f.a.1",
    "conv2.conv": "f.b.0",
    "conv2.bn": "f.b.1",
    "se.fc1": "f.se.fc1",
    "se.fc2": "f.se.fc2",
    "conv3.conv": "f.c.0",
    "conv3.bn": "f.c.1",
    "downsample.conv": "proj.0",
    "downsample.bn": "proj.1",
}
CONVNEXT_BLOCK = {
    "gamma": "layer_scale",
    "conv_dw": "block.0",
    "norm": "block.2",
    "mlp.fc1": "block.3",
    "mlp.fc2": "block.5",
}
MOBILENET_V2_DEPTHS = (1, 2, 3, 4, 3, 3, 1)
EFFICIENTNET_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
EFFICIENTNET_FACTORS = (1.0, 1.1, 1.2, 1.4, 1.8, 2.2, 2.6, 3.1)  # of the depths, of B0 to B7
LITE_FACTORS = (1.0, 1.1, 1.2)  # of lite0 to lite2, whose first and last stage are not scaled
CONVNEXT_TINY_DEPTHS = (3, 3, 9, 3)


def mobilenet_v2() -> KeyMap:
    """Return timm's names of MobileNetV2."""
    blocks = [
        (f"blocks.{stage}.{place}", f"features.{number + 1}.conv")
        for stage, place, number in numbered(MOBILENET_V2_DEPTHS)
    ]
    inner = inside(blocks[:1], MOBILENET_V2_FIRST) | inside(blocks[1:], MOBILENET_V2_BLOCK)
    return KeyMap("timm", "mobilenetv2_100", _ends(18) | inner)


def efficientnet_b0() -> KeyMap:
    """Return timm's names of EfficientNet-B0 with symmetric padding, which torchvision has."""
    blocks = [
        (f"blocks.{stage}.{place}", f"features.{stage + 1}.{place}.block")
        for stage, place, _ in numbered(EFFICIENTNET_DEPTHS)
    ]
    inner = inside(blocks[:1], EFFICIENTNET_FIRST) | inside(blocks[1:], EFFICIENTNET_BLOCK)
    return KeyMap("timm", "efficientnet_b0", _ends(8) | inner)


def efficientnet_pytorch(number: int) -> KeyMap:
    """Return efficientnet_pytorch's names of EfficientNet-B`number`, which timm has as tf_."""
    depths = [math.ceil(EFFICIENTNET_FACTORS[number] * depth) for depth in EFFICIENTNET_DEPTHS]
    return KeyMap("efficientnet_pytorch", f"efficientnet-b{number}", _efficientnet_pytorch(depths))


def efficientnet_lite(number: int) -> KeyMap:
    """Return timm's names of EfficientNet-lite`number`, which has those of efficientnet_pytorch."""
    first, *middle, last = EFFICIENTNET_DEPTHS
    depths = [first, *(math.ceil(LITE_FACTORS[number] * depth) for depth in middle), last]
    names = {ours: theirs for theirs, ours in _efficientnet_pytorch(depths).items()}
    return KeyMap("timm", f"tf_efficientnet_lite{number}", names)


def _efficientnet_pytorch(depths: Sequence[int]) -> Modules:
    blocks = [
        (f"_blocks.{number}", f"blocks.{stage}.{place}")
        for stage, place, number in numbered(depths)
    ]
    first, rest = blocks[: depths[0]], blocks[depths[0] :]
    inner = inside(first, EFFICIENTNET_PYTORCH_FIRST) | inside(rest, EFFICIENTNET_PYTORCH_BLOCK)
    return EFFICIENTNET_PYTORCH_ENDS | inner


def regnet(architecture: str, depths: Sequence[int]) -> KeyMap:
    """Return timm's names of a RegNet."""
    blocks = [
        (f"s{stage + 1}.b{place + 1}", f"trunk_output.block{stage + 1}.block{stage + 1}-{place}")
        for stage, place, _ in numbered(depths)
    ]
    ends = {"stem.conv": "stem.0", "stem.bn": "stem.1", "head.fc": "fc"}
    return KeyMap("timm", architecture, ends | inside(blocks, REGNET_BLOCK))


def vgg(architecture: str, last: int) -> KeyMap:
    """Return timm's names of a VGG, whose two hidden layers are convolutions there.

    Args:
        architecture: its name there.
        last: number of its last layer in front of the hidden ones.
    """
    hidden = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3"}
    features = {f"features.{number}": f"features.{number}" for number in range(last + 1)}
    names = hidden | features | {"head.fc": "classifier.6"}
    reshaped = tuple(f"{name}.weight" for name in hidden.values())
    return KeyMap("timm", architecture, names, reshaped)


def convnext_tiny() -> KeyMap:
    """Return timm's names of ConvNeXt-T."""
    blocks = [
        (f"stages.{stage}.blocks.{place}", f"features.{2 * stage + 1}.{place}")
        for stage, place, _ in numbered(CONVNEXT_TINY_DEPTHS)
    ]
    between = {
        f"stages.{stage}.downsample.{place}": f"features.{2 * stage}.{place}"
        for stage in (1, 2, 3)
        for place in (0, 1)
    }
    ends = {
        "stem.0": "features.0.0",
        "stem.1": "features.0.1",
        "head.norm": "classifier.0",
        "head.fc": "classifier.2",
    }
    scales = tuple(f"{ours}.layer_scale" for _, ours in blocks)
    names = ends | between | inside(blocks, CONVNEXT_BLOCK)
    return KeyMap("timm", "convnext_tiny", names, scales)


@cache
def convolutional_maps() -> dict[str, KeyMap]:
    """Return the table of every network of this module, by its name here."""
    lite = {f"efficientnet_lite{number}": efficientnet_lite(number) for number in range(3)}
    published = {
        f"timm:tf_efficientnet_b{number}": efficientnet_pytorch(number)
        for number in range(len(EFFICIENTNET_FACTORS))
    }
    return {
        "mobilenet_v2": mobilenet_v2(),
        "efficientnet_b0": efficientnet_b0(),
        "regnet_x_400mf": regnet("regnetx_004_tv", (1, 2, 7, 12)),
        "regnet_y_400mf": regnet("regnety_004", (1, 3, 6, 6)),
        "vgg11_bn": vgg("vgg11_bn", 28),
        "vgg16_bn": vgg("vgg16_bn", 43),
        "convnext_tiny": convnext_tiny(),
        **lite,
        **published,
    }


def _ends(head: int) -> dict[str, str]:
    """Return the first and last modules of two families, whose last convolution has a number."""
    return {
        "conv_stem": "features.0.0",
        "bn1": "features.0.1",
        "conv_head": f"features.{head}.0",
        "bn2": f"features.{head}.1",
        "classifier": "classifier.1",
    }
