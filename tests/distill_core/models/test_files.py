"""Networks as files: what cannot be used later is never stored."""

from __future__ import annotations

import pytest
import torch

from distill_core.config.training import ModelConfig
from distill_core.errors import DivergedError
from distill_core.models.build import build_model
from distill_core.models.files import load_network, save_weights

SMALL = ModelConfig(name="resnet18_small", width=4)


def test_weights_are_those_that_were_saved() -> None:
    model = build_model(SMALL, 10, seed=3)
    loaded = load_network(save_weights(model), SMALL, num_classes=10).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["conv1.weight", "bn1.running_var"])
def test_weights_that_the_last_step_ruined_are_not_stored(name: str, value: float) -> None:
    model = build_model(SMALL, 10, seed=3)
    model.state_dict()[name].view(-1)[0] = value
    with pytest.raises(DivergedError, match=rf"SmallResNet18: tensor '{name}' has NaN or infinite"):
        save_weights(model)
