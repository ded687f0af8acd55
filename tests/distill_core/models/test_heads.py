"""Heads: features and head give the logits of the whole network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distill_core.config.training import ModelConfig
from distill_core.models.build import build_model, head_name, split_head


@pytest.mark.parametrize(
    ("name", "head", "features"),
    [
        ("resnet18_small", "fc", 32),
        ("resnet18", "fc", 512),
        ("mobilenet_v2", "classifier.1", 1280),
        ("convnet3", "classifier", 4),
    ],
)
def test_backbone_and_head_give_the_logits_of_the_whole(
    name: str, head: str, features: int
) -> None:
    width = 4 if name in ("resnet18_small", "convnet3") else None
    config = ModelConfig.model_validate({"name": name, "width": width})
    model, x = build_model(config, 5, seed=0).eval(), torch.randn(2, 3, 32, 32)
    whole = model(x)
    assert head_name(model) == head
    backbone, linear = split_head(model)
    assert backbone(x).shape == (2, features)
    assert torch.equal(linear(backbone(x)), whole)


def test_a_network_without_a_linear_layer_has_no_head() -> None:
    with pytest.raises(TypeError, match="no linear layer"):
        head_name(nn.Sequential(nn.Conv2d(3, 4, 1)))
