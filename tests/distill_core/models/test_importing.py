"""Checkpoints of other programs: imported or refused in one line, and never executed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from distill_core.config.training import ModelConfig
from distill_core.errors import ConfigError, DataError
from distill_core.models.build import build_model
from distill_core.models.importing import import_model, read_description, read_weights
from distill_core.models.spec import TeacherSpec

CONFIG = ModelConfig(name="resnet18_small", width=4)
State = dict[str, Tensor]


@pytest.fixture
def state() -> State:
    """Return the state dict of a five-class network."""
    return build_model(CONFIG, 5, seed=0).state_dict()


def saved(tmp_path: Path, content: Any) -> str:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    return str(path)


def imported(url: str, num_classes: int = 5) -> State:
    return import_model(url, CONFIG, num_classes=num_classes).state_dict()


def assert_same(state: State, expected: State) -> None:
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {"module." + name: t for name, t in s.items()},
        lambda s: {"model": {"module._orig_mod." + name: t for name, t in s.items()}},
    ],
)
def test_wrappers_and_prefixes_of_trainers_are_taken_off(
    tmp_path: Path, state: State, wrap: Any
) -> None:
    assert_same(imported(saved(tmp_path, wrap(state))), state)


def test_safetensors_are_read(tmp_path: Path, state: State) -> None:
    save_file(state, tmp_path / "w.safetensors")
    assert_same(imported(str(tmp_path / "w.safetensors")), state)


def test_half_precision_becomes_float32(tmp_path: Path, state: State) -> None:
    half = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    found = imported(saved(tmp_path, half))
    assert found["fc.weight"].dtype == torch.float32
    torch.testing.assert_close(found["fc.weight"], state["fc.weight"].half().float())


def test_old_checkpoints_without_batch_counters_are_read(tmp_path: Path, state: State) -> None:
    old = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    assert_same(imported(saved(tmp_path, old)), state)


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.sentinel),)


@pytest.mark.parametrize("plain", [False, True])
def test_a_pickle_bomb_is_refused_and_does_not_run(
    tmp_path: Path, state: State, plain: bool
) -> None:
    bomb, path = Bomb(tmp_path / "sentinel"), tmp_path / "weights.pth"
    if plain:
        path.write_bytes(pickle.dumps({"state_dict": bomb}))
    else:
        torch.save({"state_dict": state, "extra": bomb}, path)
    with pytest.raises(DataError, match=r"weights\.pth: .*not pickled code"):
        read_weights(str(path))
    assert not (tmp_path / "sentinel").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("keep", [0, 7, 900, -40])
def test_a_truncated_file_is_refused(tmp_path: Path, state: State, name: str, keep: int) -> None:
    path = tmp_path / name
    save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        read_weights(str(path))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.pth: cannot be read"):
        read_weights(str(tmp_path / "none.pth"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(
    tmp_path: Path, state: State, value: float
) -> None:
    state["layer1.0.bn1.running_var"][0] = value
    with pytest.raises(DataError, match=r"'layer1\.0\.bn1\.running_var' has NaN or infinite"):
        imported(saved(tmp_path, state))


def test_another_class_count_is_refused_with_both_numbers(tmp_path: Path, state: State) -> None:
    with pytest.raises(ConfigError, match=r"weights\.pth: .* has 5 classes, the dataset has 100"):
        imported(saved(tmp_path, state), num_classes=100)


def test_another_network_is_refused(tmp_path: Path, state: State) -> None:
    transformer = {"blocks.0.attn.qkv.weight": torch.zeros(3, 1), "head.weight": torch.zeros(5, 2)}
    with pytest.raises(ConfigError, match=r"not the weights of resnet18_small-w4.*1 tensors unk"):
        imported(saved(tmp_path, transformer))
    del state["layer3.0.bn2.weight"]
    with pytest.raises(ConfigError, match=r"1 tensors missing \(first 'layer3\.0\.bn2\.weight'\)"):
        imported(saved(tmp_path, state))


def test_another_width_is_refused_with_both_shapes(tmp_path: Path) -> None:
    wide = build_model(ModelConfig(name="resnet18_small", width=8), 5, seed=0).state_dict()
    with pytest.raises(ConfigError, match=r"'conv1\.weight' is \(8, 3, 3, 3\).*\(4, 3, 3, 3\)"):
        imported(saved(tmp_path, wide))


@pytest.mark.parametrize("content", [[1, 2], {}, torch.zeros(3), {"lr": 0.1}])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError, match="expected a"):
        read_weights(saved(tmp_path, content))


def test_a_description_beside_exported_weights_is_found(tmp_path: Path, state: State) -> None:
    url = str(tmp_path / "t.safetensors")
    save_file(state, url)
    assert read_description(url) is None
    spec = TeacherSpec(
        model=CONFIG,
        num_classes=5,
        class_hash="ab",
        mean=(0, 0, 0),
        std=(1, 1, 1),
        side=32,
        features=32,
        origin="trained",
    )
    (tmp_path / "t.json").write_bytes(spec.to_json())
    assert read_description(url) == spec
    (tmp_path / "t.json").write_bytes(b"[]")
    with pytest.raises(DataError, match=r"t\.json"):
        read_description(url)
