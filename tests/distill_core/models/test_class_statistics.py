"""Statistics of every class beside the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill_core.config.training import ModelConfig
from distill_core.errors import ConfigError
from distill_core.models.build import build_model
from distill_core.models.class_statistics import class_statistics, without_images
from distill_core.models.importing import Fate, fit_network, read_weights
from distill_core.squeeze.outputs import statistics_file
from distill_core.storage.statistics_files import decode_statistics

CLASSES = 5
CONFIG = ModelConfig(name="resnet18_small", width=4)
State = dict[str, Tensor]


def norms(model: nn.Module) -> list[tuple[str, int]]:
    return [(n, m.num_features) for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build_model(CONFIG, CLASSES, seed=0)


@pytest.fixture
def statistics(model: nn.Module) -> State:
    """Return class statistics whose numbers tell layer, class and kind."""
    return {
        f"{name}.class_running_{kind}": torch.full((CLASSES, channels), 1 + number + shift)
        + 100 * torch.arange(CLASSES)[:, None]
        for number, (name, channels) in enumerate(norms(model))
        for kind, shift in (("mean", 0.0), ("var", 0.5))
    }


def fitted(
    folder: Path, model: nn.Module, state: State, fate: Fate
) -> tuple[dict[str, np.ndarray], list[str]]:
    notices: list[str] = []
    torch.save({"model": model.state_dict() | state}, folder / "lpld.pth")
    url = str(folder / "lpld.pth")
    found = fit_network(
        read_weights(url),
        CONFIG,
        num_classes=CLASSES,
        where=url,
        statistics=fate,
        notice=notices.append,
    )
    return dict(found.statistics), notices


@pytest.mark.parametrize(
    "renamed",
    [
        lambda name: name,
        lambda name: f"module.{name}",
        lambda name: f"backbone.{name.replace('.downsample.', '.shortcut.')}",
    ],
)
def test_statistics_are_numbered_like_the_batch_norms_whatever_their_names_in_the_file(
    model: nn.Module, statistics: State, renamed: Callable[[str], str]
) -> None:
    state = {renamed(name): tensor for name, tensor in sorted(statistics.items())}
    found = class_statistics(state, model, CONFIG, where="here")
    assert len(found) == 2 * len(norms(model))
    for number, (_, channels) in enumerate(norms(model)):
        for kind, shift in (("mean", 0.0), ("var", 0.5)):
            expected = np.full((CLASSES, channels), 1 + number + shift, np.float32)
            expected += 100 * np.arange(CLASSES, dtype=np.float32)[:, None]
            np.testing.assert_array_equal(found[f"{number:03d}.{kind}"], expected)


def test_what_happens_to_statistics_is_reported(
    tmp_path: Path, model: nn.Module, statistics: State
) -> None:
    for fate, words in (
        ("left_out", "are left out; the statistics stage measures them"),
        ("kept", "are kept beside the teacher; no term of this run compares"),
        ("used", "are compared with as they are; squeeze.imported.class_statistics=false"),
    ):
        found, (notice,) = fitted(tmp_path, model, statistics, fate)  # type: ignore[arg-type]
        assert bool(found) == (fate != "left_out")
        assert f"statistics of each of 5 classes are not weights and {words}" in notice
    found, notices = fitted(tmp_path, model, {}, "used")
    assert (found, notices) == ({}, [])


def fewer_classes(state: State) -> State:
    return {name: tensor[:-1] for name, tensor in state.items()}


def without_a_layer(state: State) -> State:
    return {name: t for name, t in state.items() if name != "layer2.0.bn2.class_running_var"}


def other_channels(state: State) -> State:
    return state | {"bn1.class_running_mean": torch.zeros(CLASSES, 3)}


def negative(state: State) -> State:
    return state | {"layer4.1.bn2.class_running_var": -torch.ones(CLASSES, 32)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (fewer_classes, "statistics of 4 classes, but the network has 5 outputs"),
        (without_a_layer, r"no 'layer2\.0\.bn2\.class_running_var', unlike other layers"),
        (other_channels, r"'bn1\.class_running_mean' is \(5, 3\), expected \(5, 4\)"),
        (negative, r"'layer4\.1\.bn2\.class_running_var' has negative variances"),
    ],
)
def test_statistics_that_do_not_fit_are_refused_where_they_are_used_and_else_left_out(
    tmp_path: Path,
    model: nn.Module,
    statistics: State,
    change: Callable[[State], State],
    words: str,
) -> None:
    with pytest.raises(ConfigError, match=f"{words}.*class_statistics=false"):
        fitted(tmp_path, model, change(statistics), "used")
    found, (notice,) = fitted(tmp_path, model, change(statistics), "kept")
    assert found == {}
    assert notice.endswith("They are left out.")


def test_the_file_has_the_classes_in_the_order_of_the_dataset_without_those_never_seen(
    model: nn.Module, statistics: State
) -> None:
    for name, tensor in statistics.items():  # as the buffers of a class without images start
        tensor[3] = 0 if name.endswith("mean") else 1
    rows = class_statistics(statistics, model, CONFIG, where="here")
    assert without_images(rows).tolist() == [False, False, False, True, False]
    names, places = ("ant", "bee", "cow", "dog"), (4, 3, 0, 1)  # of five outputs
    read = decode_statistics(statistics_file(rows, places, names))
    assert read.wnids == ("ant", "cow", "dog")
    assert read.of_class("bee") is None
    for name, output in (("ant", 4), ("cow", 0), ("dog", 1)):
        of_class = read.of_class(name)
        assert of_class is not None
        for key, values in of_class.items():
            np.testing.assert_array_equal(values, rows[key][output])
