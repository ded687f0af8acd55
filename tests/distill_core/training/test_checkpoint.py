"""A checkpoint that cannot be used is reported, and the one before it is used."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.optim import Optimizer

from distill_core.config.training import OptimizerConfig
from distill_core.training.checkpoint import pack_state, restore
from distill_core.training.optim import build_optimizer
from tests.support.killed import MemoryCheckpoints


def network(seed: int = 0, *, features: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, features), nn.BatchNorm1d(features), nn.Linear(features, 2))


def trained(model: nn.Module, name: str = "sgd") -> Optimizer:
    """Take one step, so that the optimiser has a state."""
    optimizer = build_optimizer(model, OptimizerConfig(name=name, lr=0.1, momentum=0.9))
    model(torch.linspace(-1, 1, 12).view(4, 3)).square().sum().backward()
    optimizer.step()
    return optimizer


def packed(model: nn.Module, name: str = "sgd", **meta: Any) -> bytes:
    return pack_state(model, trained(model, name), meta=meta or {"epochs": 2})


def edited(data: bytes, **facts: Any) -> bytes:
    """Return a state whose JSON facts are those of another version."""
    size = int.from_bytes(data[:8], "little")
    state = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["state"])
    return save(load(data), metadata={"state": json.dumps({**state, **facts})})


GOOD = packed(network(seed=1), epochs=1)
NEWER = packed(network(seed=2))
UNUSABLE = {
    "empty": b"",
    "truncated": NEWER[:-40],
    "cut in its header": NEWER[:100],
    "no checkpoint at all": b"PK\x03\x04 a zip file, as other programs write it",
    "of another version": edited(NEWER, version=2),
    "without facts": save({"model/weight": torch.zeros(1)}),
    "of another size": packed(network(features=8)),
    "of another network": packed(nn.Linear(3, 2)),
    "of another optimiser": packed(network(), "adamw"),
    "with other facts": packed(network(), steps=2),
}


def resumed(kept: dict[int, bytes]) -> tuple[nn.Module, tuple[int, int] | None, list[str]]:
    """Restore a network from checkpoints; return it with the result and the notices."""
    model, notices = network(), list[str]()
    optimizer = build_optimizer(model, OptimizerConfig(name="sgd", lr=0.1, momentum=0.9))
    found = restore(
        MemoryCheckpoints(kept=kept),
        model,
        optimizer,
        read=lambda meta: int(meta["epochs"]),
        notice=notices.append,
    )
    return model, found, notices


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("kind", UNUSABLE)
def test_the_checkpoint_before_an_unusable_one_is_used(kind: str) -> None:
    expected, _, _ = resumed({1: GOOD})
    model, found, notices = resumed({1: GOOD, 2: UNUSABLE[kind]})
    assert found == (1, 1)
    assert same_weights(model, expected)
    (notice,) = notices
    assert notice.startswith("The checkpoint after epoch 2 cannot be used (")
    assert len(notice.splitlines()) == 1


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_network_without_a_usable_checkpoint_stays_as_it_is(kind: str) -> None:
    model, found, notices = resumed({2: UNUSABLE[kind]})
    assert (found, len(notices)) == (None, 1)
    assert same_weights(model, network())


def test_a_state_without_the_name_of_its_optimiser_is_used() -> None:
    size = int.from_bytes(NEWER[:8], "little")
    state = json.loads(json.loads(NEWER[8 : 8 + size])["__metadata__"]["state"])
    del state["optimizer"]  # as older versions wrote it
    old = save(load(NEWER), metadata={"state": json.dumps(state)})
    assert resumed({2: old})[1:] == ((2, 2), [])
