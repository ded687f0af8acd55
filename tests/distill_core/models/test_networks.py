"""Every network of the table: names and logits of torchvision, frozen, and split into its parts."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from distill_core.config.fields import Precision
from distill_core.config.training import WITHOUT_BATCH_NORM, ModelConfig
from distill_core.models.build import MODELS, build_model, head_name, skeleton
from distill_core.models.fitting import fit_weights
from distill_core.models.spec import TeacherSpec
from distill_core.models.teacher import FrozenTeacher

CLASSES = 5
NORMS = {  # batch norm layers
    "resnet18_small": 20,
    "resnet18_maxpool_small": 20,
    "resnet50_small": 53,
    "resnet101_small": 104,
    "densenet121_small": 121,
    "mobilenet_v2_small": 52,
    "shufflenet_v2_x0_5_small": 56,
    "efficientnet_b0_small": 49,
    "resnet20_small": 21,
    "resnet32_small": 33,
    "resnet44_small": 45,
    "resnet56_small": 57,
    "wrn_16_2": 13,
    "convnet1": 1,
    "convnet2": 2,
    "convnet3": 3,
    "convnet4": 4,
    "convnet3_instance": 0,
    "convnet4_instance": 0,
    "resnet18": 20,
    "resnet50": 53,
    "resnet101": 104,
    "densenet121": 121,
    "mobilenet_v2": 52,
    "shufflenet_v2_x0_5": 56,
    "shufflenet_v2_x1_0": 56,
    "efficientnet_b0": 49,
    "efficientnet_lite0": 49,
    "efficientnet_lite1": 64,
    "efficientnet_lite2": 64,
    "alexnet": 0,
    "resnet34": 36,
    "regnet_x_400mf": 71,
    "regnet_y_400mf": 53,
    "mobilenet_v3_small": 34,
    "mobilenet_v3_large": 46,
    "vgg11_bn": 8,
    "vgg16_bn": 13,
    "convnext_tiny": 0,
    "swin_t": 0,
    "vit_b_16": 0,
}
LARGE = ("vgg11_bn", "vgg16_bn", "convnext_tiny", "swin_t", "vit_b_16")  # seconds to draw
BUILT = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in MODELS]
CIFAR = ("resnet20", "resnet32", "resnet44", "resnet56")
OWN = (
    "wrn",
    "convnet1",
    "convnet2",
    "convnet3",
    "convnet4",
    "efficientnet_lite",
    *CIFAR,
)  # networks that torchvision lacks
TORCHVISION = [name for name in MODELS if not name.startswith(OWN)]


def config(name: str) -> ModelConfig:
    return ModelConfig.model_validate({"name": name, "width": width(name)})


def width(name: str) -> int | None:
    return 8 if name.startswith(("resnet18_small", "resnet18_maxpool", "convnet")) else None


def side(name: str) -> int:
    return {"alexnet": 64, "vit_b_16": 224}.get(name, 32)


@cache
def built(name: str) -> nn.Module:
    """Return the network in eval mode; its start is the seed's, so sharing it changes nothing."""
    return drawn(name).eval()


def drawn(name: str) -> nn.Module:
    """Return a network whose head is not zero, as that of a transformer is at its start."""
    model = build_model(config(name), CLASSES, seed=0)
    weight = model.get_parameter(f"{head_name(model)}.weight")
    if not weight.any():
        nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(0))
    return model


def pixels(name: str, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side(name), side(name), generator=torch.Generator().manual_seed(0))


def frozen(name: str, precision: Precision = "float32") -> FrozenTeacher:
    model = drawn(name)
    spec = TeacherSpec(
        model=config(name),
        num_classes=CLASSES,
        class_hash="0" * 16,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        side=side(name),
        features=1,
        origin="test",
    )
    return FrozenTeacher(model, spec, digest="0" * 64, precision=precision)


@pytest.mark.parametrize("name", BUILT)
def test_a_frozen_network_has_the_same_logits_and_its_features_give_them(name: str) -> None:
    with torch.no_grad():
        teacher, x = frozen(name), pixels(name)
        said = teacher(x, statistics=True)
        assert said.logits.shape == (2, CLASSES)
        assert torch.isfinite(said.logits).all()
        torch.testing.assert_close(said.logits, built(name)(x), rtol=1e-3, atol=1e-4)
        by_hand = said.features @ teacher.head.weight.T + teacher.head.bias
        torch.testing.assert_close(by_hand, said.logits)
        assert len(said.statistics) == teacher.num_statistics == NORMS[name]


@pytest.mark.parametrize("name", BUILT)
def test_a_frozen_network_gives_a_gradient_to_the_pixels_and_to_nothing_else(name: str) -> None:
    teacher, x = frozen(name), pixels(name).requires_grad_()
    said = teacher(x, statistics=True)
    loss = said.logits.square().mean() + sum(s.mean.square().mean() for s in said.statistics)
    loss.backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("name", ["alexnet", "convnet3_instance", "densenet121_small"])
def test_features_and_logits_stay_float32_under_bfloat16(name: str) -> None:
    with torch.no_grad():
        said, exact = frozen(name, "bfloat16")(pixels(name)), frozen(name)(pixels(name))
    assert said.features.dtype == said.logits.dtype == torch.float32
    torch.testing.assert_close(said.logits, exact.logits, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", TORCHVISION)
def test_parameters_have_the_names_and_numbers_of_torchvision(name: str) -> None:
    plain = name.removesuffix("_small") if name.endswith("_small") and "v3" not in name else name
    theirs = of_torchvision(plain.removesuffix("_maxpool")).state_dict()
    ours = skeleton(ModelConfig(name=name), CLASSES).state_dict()
    assert theirs.keys() == ours.keys()
    if plain == name:
        assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}


def of_torchvision(name: str) -> nn.Module:
    from torchvision import models

    with torch.device("cpu" if name.startswith("regnet") else "meta"):  # which needs numbers
        model: nn.Module = getattr(models, name)(num_classes=CLASSES)
    return model


def test_the_networks_without_batch_norm_are_listed() -> None:
    assert {name for name, norms in NORMS.items() if norms == 0} == WITHOUT_BATCH_NORM


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "shufflenet_v2_x0_5", "mobilenet_v2"])
def test_weights_of_torchvision_load_and_give_its_logits(name: str) -> None:
    from torchvision import models

    theirs = getattr(models, name)(num_classes=CLASSES).eval()
    ours = fit_weights(theirs.state_dict(), config(name), num_classes=CLASSES, where="here").eval()
    with torch.no_grad():
        assert torch.equal(ours(pixels(name)), theirs(pixels(name)))


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("resnet50_small", "layer4"),
        ("densenet121_small", "features.denseblock4"),
        ("mobilenet_v2_small", "features.17"),
        ("shufflenet_v2_x0_5_small", "stage4"),
        ("wrn_16_2", "block3"),
    ],
)
def test_a_small_network_keeps_a_map_of_at_least_four_pixels_a_side(name: str, last: str) -> None:
    seen: list[Tensor] = []
    handle = built(name).get_submodule(last).register_forward_hook(lambda *a: seen.append(a[2]))
    with torch.no_grad():
        built(name)(pixels(name))
    handle.remove()
    assert seen[0].shape[-1] >= 4


def test_an_instance_norm_does_not_mix_images() -> None:
    x = pixels("convnet3_instance")
    with torch.no_grad():
        both, first = built("convnet3_instance")(x), built("convnet3_instance")(x[:1])
    torch.testing.assert_close(both[:1], first)


def test_wrn_16_2_is_of_the_published_size() -> None:
    model = build_model(ModelConfig(name="wrn_16_2"), 10, seed=0)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(0.7e6, rel=0.02)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet20_small", 0.27),
        ("resnet32_small", 0.47),
        ("resnet44_small", 0.66),
        ("resnet56_small", 0.86),
    ],
)
def test_a_narrow_residual_network_is_of_the_published_size(name: str, millions: float) -> None:
    model = skeleton(ModelConfig(name=name), 10)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
