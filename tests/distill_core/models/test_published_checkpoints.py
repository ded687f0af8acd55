"""Checkpoints in the forms that other projects publish: imported, or refused by name, never run."""

from __future__ import annotations

import argparse
import pickle
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from distill_core.config.training import ModelConfig
from distill_core.errors import ConfigError, DataError
from distill_core.models.build import build_model
from distill_core.models.checkpoint_check import check_checkpoint
from distill_core.models.importing import import_model

CONFIG = ModelConfig(name="resnet18_small", width=4)
State = dict[str, Tensor]


class Settings(dict[str, Any]):
    """A dictionary of a class that another machine does not have, as Lightning stores."""


class Tracker:
    """An object of a trainer, with a state of its own."""

    def __init__(self) -> None:
        self.best, self.history = np.float64(71.5), [1, 2]
        self.device, self.when = torch.device("cpu"), datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def state() -> State:
    """Return the state dict of a five-class network."""
    return build_model(CONFIG, 5, seed=0).state_dict()


@pytest.fixture(scope="module")
def average() -> State:
    """Return another one: the averaged weights of the same training."""
    return build_model(CONFIG, 5, seed=1).state_dict()


def saved(folder: Path, content: Any, *, zipped: bool = True) -> str:
    path = folder / "weights.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return str(path)


def imported(url: str, entry: str | None = None) -> tuple[State, list[str]]:
    notices: list[str] = []
    model = import_model(url, CONFIG, num_classes=5, entry=entry, notice=notices.append)
    return model.state_dict(), notices


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def fadrm(state: State) -> State:
    return {
        name.replace(".downsample.", ".shortcut.").replace("fc.", "linear."): tensor
        for name, tensor in state.items()
    }


def headless(state: State) -> State:
    """Return the names of a backbone in a module with a head of its own."""
    return {
        name.replace("fc.", "head.fc.") if name.startswith("fc.") else f"backbone.{name}": tensor
        for name, tensor in state.items()
    }


OPTIMIZER = {"state": {0: {"exp_avg.weight": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
FORMS: dict[str, Callable[[State], Any]] = {
    "torchvision references": lambda s: {
        "model": s,
        "optimizer": OPTIMIZER,
        "lr_scheduler": {"last_epoch": 3},
        "epoch": 89,
        "args": argparse.Namespace(lr=0.1, data_path="/data"),
    },
    "metrics of numpy": lambda s: {"state_dict": s, "best": np.float64(76.1), "acc": np.float32(1)},
    "arrays of numpy": lambda s: {"state_dict": s, "confusion": np.eye(3), "ids": np.arange(3)},
    "net": lambda s: {"net": s, "acc": 93.1, "epoch": 5},
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer_state_dict": OPTIMIZER},
    "lightning": lambda s: {
        "state_dict": prefixed(s, "model."),
        "hyper_parameters": Settings(lr=0.1),
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.7)}},
        "loops": Tracker(),
    },
    "net in a module": lambda s: {"state_dict": prefixed(s, "module.net.")},
    "backbone and head": headless,
    "fadrm": fadrm,
    "averaged model": lambda s: prefixed(s, "module.") | {"n_averaged": torch.tensor(7)},
    "profiled": lambda s: (
        s | {"total_ops": torch.zeros(1), "layer1.0.conv1.total_ops": torch.ones(1)}
    ),
    "nested": lambda s: {"checkpoint": {"network": s}, "config": SimpleNamespace(a=1)},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_a_published_form_is_imported_without_its_code(
    tmp_path: Path, state: State, form: str, zipped: bool
) -> None:
    found, _ = imported(saved(tmp_path, FORMS[form](state), zipped=zipped))
    assert same(found, state)


def test_lightning_names_in_safetensors_are_accepted_by_the_header(
    tmp_path: Path, state: State
) -> None:
    url = str(tmp_path / "w.safetensors")
    save_file(prefixed(fadrm(state), "model."), url)
    check_checkpoint(url, CONFIG, num_classes=5)
    with pytest.raises(ConfigError, match="has 5 classes, the dataset has 7"):
        check_checkpoint(url, CONFIG, num_classes=7)
    assert same(imported(url)[0], state)


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema_state_dict"])
def test_averaged_weights_are_used_where_they_are_named_or_alone(
    tmp_path: Path, state: State, average: State, key: str
) -> None:
    both = saved(tmp_path, {"state_dict": state, key: prefixed(average, "module.")})
    found, notices = imported(both)
    assert same(found, state)
    assert notices == [
        f"{both}: the weights of the entry 'state_dict' are used; squeeze.imported.entry can "
        f"choose {key!r} instead."
    ]
    chosen, notices = imported(both, entry=key)
    assert same(chosen, average)
    assert f"the entry {key!r} are used" in notices[0]
    alone, notices = imported(saved(tmp_path, {key: average, "epoch": 3}))
    assert same(alone, average)
    assert f"the entry {key!r} are used" in notices[0]


def test_an_entry_that_is_not_there_and_two_that_could_be_meant_are_refused_with_a_list(
    tmp_path: Path, state: State, average: State
) -> None:
    two = saved(tmp_path, {"student": state, "teacher": average, "optimizer": OPTIMIZER})
    with pytest.raises(DataError, match=r"weights under student, teacher\. Set squeeze\.imported"):
        imported(two)
    assert same(imported(two, entry="teacher")[0], average)
    with pytest.raises(DataError, match=r"no entry 'ema' with weights; it has student, teacher"):
        imported(two, entry="ema")


def test_statistics_of_classes_are_no_weights_and_are_reported(
    tmp_path: Path, state: State
) -> None:
    statistics = {f"bn1.class_running_{kind}": torch.ones(5, 4) for kind in ("mean", "var")}
    found, notices = imported(saved(tmp_path, {"model": state | statistics}))
    assert same(found, state)
    assert len(notices) == 1
    assert "statistics of each of 5 classes" in notices[0]
    assert "'bn1.class_running_mean'" in notices[0]


def test_two_tensors_of_one_name_are_not_merged(tmp_path: Path, state: State) -> None:
    twice = state | prefixed(state, "backbone.")
    with pytest.raises(ConfigError, match=r"unknown \(first 'backbone\.conv1\.weight'\)"):
        imported(saved(tmp_path, twice))


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call, self.arguments


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_in_a_checkpoint_runs(tmp_path: Path, state: State, zipped: bool) -> None:
    sentinel = tmp_path / "sentinel"
    touch = f"open({str(sentinel)!r}, 'w').close()"
    bombs = [
        Bomb(subprocess.call, ["touch", str(sentinel)]),
        Bomb(exec, touch),
        Bomb(eval, touch),
        Bomb(Path.touch, sentinel),
        Bomb(pickle.loads, pickle.dumps(Bomb(exec, touch))),
    ]
    for bomb in bombs:
        url = saved(tmp_path, {"state_dict": state, "args": bomb}, zipped=zipped)
        try:
            assert same(imported(url)[0], state)
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017 - both are right
        assert not sentinel.exists()


def test_an_array_of_absurd_size_is_refused(tmp_path: Path, state: State) -> None:
    url = saved(tmp_path, {"state_dict": state, "best": Bomb(np.ndarray, (2**55,))})
    with pytest.raises(DataError, match="cannot be read as plain weights"):
        imported(url)


def test_a_whole_network_and_a_value_of_a_class_are_refused_by_their_class(
    tmp_path: Path, state: State
) -> None:
    with pytest.raises(DataError, match=r"a pickled torch\.nn\.modules\.container\.Sequential"):
        imported(saved(tmp_path, nn.Sequential(nn.Linear(2, 2))))
    odd: dict[str, Any] = OrderedDict(state)
    odd["layer1.extra"] = Tracker()
    with pytest.raises(DataError, match=r"'layer1\.extra' is a tests.*\.Tracker, expected a ten"):
        imported(saved(tmp_path, odd))
    odd["layer1.extra"] = 3
    with pytest.raises(DataError, match=r"'layer1\.extra' is a int, expected a tensor"):
        imported(saved(tmp_path, odd))


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 46830571\n", "Git LFS"),
        (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "an HTML page"),
        (b"<html>404</html>", "an HTML page"),
    ],
)
def test_a_pointer_and_a_page_are_named(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    for read in (
        lambda: imported(str(path)),
        lambda: check_checkpoint(str(path), CONFIG, num_classes=5),
    ):
        with pytest.raises(DataError, match=rf"{name}: not a checkpoint, but .*{words}"):
            read()
