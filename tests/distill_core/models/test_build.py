"""Networks: their shapes, and initial weights that depend on the seed only."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from distill_core.config.training import ModelConfig, Network
from distill_core.errors import ConfigError
from distill_core.models.build import MODELS, build_model, same_tensors, skeleton

SMALL = ModelConfig(name="resnet18_small", width=4)


def same(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_table_and_the_config_list_the_same_networks() -> None:
    assert set(MODELS) == set(get_args(Network))


@pytest.mark.parametrize(
    "name", ["resnet18_small", "mobilenet_v2", "convnet3_instance", "wrn_16_2"]
)
def test_every_network_gives_logits_and_a_gradient(name: str) -> None:
    config = ModelConfig.model_validate({"name": name})
    model = build_model(config, 7, seed=0)
    logits: Tensor = model(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 7)
    torch.autograd.backward(logits.square().sum())
    assert all(
        p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters()
    )


def test_the_same_seed_gives_the_same_network_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first = build_model(SMALL, 10, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert same(first, build_model(SMALL, 10, seed=3))


def test_another_seed_gives_another_network() -> None:
    assert not same(build_model(SMALL, 10, seed=3), build_model(SMALL, 10, seed=4))


def test_a_parameter_does_not_depend_on_the_shape_of_the_others() -> None:
    few, many = (build_model(SMALL, classes, seed=0) for classes in (2, 1000))
    assert torch.equal(
        few.get_parameter("layer4.1.conv2.weight"), many.get_parameter("layer4.1.conv2.weight")
    )


def test_no_two_parameters_share_their_draws() -> None:
    model = build_model(SMALL, 10, seed=0)
    blocks = [model.get_parameter(f"layer1.{i}.conv{j}.weight") for i in (0, 1) for j in (1, 2)]
    assert len({block.flatten()[0].item() for block in blocks}) == len(blocks)


def test_initial_weights_have_the_variance_of_he_initialisation() -> None:
    weight = build_model(ModelConfig(name="resnet18_small", width=32), 10, seed=0).get_parameter(
        "layer3.0.conv2.weight"
    )
    assert weight.detach().std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)


def test_resnet18_small_keeps_the_resolution_and_the_names_of_torchvision() -> None:
    names = set(skeleton(ModelConfig(name="resnet18_small"), 10).state_dict())
    assert names == set(skeleton(ModelConfig(name="resnet18"), 10).state_dict())
    model = build_model(SMALL, 10, seed=0)
    assert model.get_submodule("layer1")(torch.randn(1, 4, 32, 32)).shape == (1, 4, 32, 32)


def test_full_width_is_the_published_size() -> None:
    model = skeleton(ModelConfig(name="resnet18_small"), 100)
    assert sum(p.numel() for p in model.parameters()) == 11_220_132


def test_a_width_for_a_network_of_fixed_width_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"resnet50: width = 32.*Remove width"):
        build_model(ModelConfig(name="resnet50", width=32), 10, seed=0)


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("resnet18_small", ["resnet18_maxpool_small"]),
        ("mobilenet_v2", ["mobilenet_v2_small"]),
        ("efficientnet_b0_small", ["efficientnet_b0"]),
        ("shufflenet_v2_x0_5_small", ["shufflenet_v2_x0_5"]),
        ("resnet50_small", []),  # the first layer of resnet50 is larger
        ("resnet34", []),
    ],
)
def test_networks_with_the_same_tensors_are_found(name: str, others: list[str]) -> None:
    found = same_tensors(ModelConfig(name=name), 10)
    assert [config.name for config in found] == others
