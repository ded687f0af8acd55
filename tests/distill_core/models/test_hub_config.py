"""The config beside a published network, compared with the run that imports it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from distill_core.errors import ConfigError, DataError
from distill_core.models.hub_config import check_hub_config
from tests.support.teacher_training import run

CONFIG: dict[str, Any] = {
    "architecture": "resnet18",
    "num_classes": 3,
    "pretrained_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.2502],
        "input_size": [3, 16, 16],
        "crop_pct": 0.875,
    },
}


def check(
    folder: Path,
    config: Any,
    name: str = "model.safetensors",
    *,
    model: dict[str, Any] | None = None,
    **imported: Any,
) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    squeeze = {"checkpoint": str(folder / name), "training": None, "imported": imported or None}
    if model is not None:
        squeeze["model"] = model
    check_hub_config(str(folder / name), run(squeeze=squeeze), outputs=3)


def changed(**values: Any) -> dict[str, Any]:
    return CONFIG | {"pretrained_cfg": CONFIG["pretrained_cfg"] | values}


def test_a_config_that_agrees_or_states_nothing_is_accepted(tmp_path: Path) -> None:
    check(tmp_path, CONFIG)
    check(tmp_path, {})
    check(tmp_path, {"num_classes": 7}, name="teacher.safetensors")  # not of that file
    (tmp_path / "config.json").unlink()
    check_hub_config(str(tmp_path / "model.safetensors"), run(), outputs=3)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (CONFIG | {"num_classes": 1000}, r"has 1000, but data\.num_classes = 3\. Set data\.num"),
        (changed(mean=[0.485, 0.456, 0.406]), r"\[0\.485, 0\.456, 0\.406\], but data\.mean"),
        (changed(std=[1, 1, 1]), r"\[1\.0, 1\.0, 1\.0\], but data\.std = \[0\.25"),
        (changed(input_size=[3, 224, 224]), r"has 224, but data\.side = 16"),
    ],
)
def test_a_value_that_differs_is_refused_with_both(
    tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        check(tmp_path, config)
    check(tmp_path, config, accept_any=True)


@pytest.mark.parametrize(
    ("architecture", "name", "refused"),
    [
        ("tf_efficientnet_b0", "efficientnet_b0", True),
        ("tf_efficientnet_b0", "timm:efficientnet_b0.ra_in1k", True),
        ("efficientnet_lite0", "efficientnet_lite0", True),
        ("efficientnet_b0", "timm:tf_efficientnet_b0", True),
        ("tf_efficientnet_lite0", "efficientnet_lite0", False),
        ("efficientnet_lite0", "timm:efficientnet_lite0", False),
        ("tf_efficientnet_b0", "timm:tf_efficientnet_b0.ns_jft_in1k", False),
        ("efficientnet_b0", "efficientnet_b0_small", False),
        ("tf_efficientnet_b0", "resnet18", False),  # its tensors are the reason to refuse it
    ],
)
def test_the_same_tensors_with_another_padding_are_refused(
    tmp_path: Path, architecture: str, name: str, refused: bool
) -> None:
    found = CONFIG | {"architecture": architecture}
    reason = f"architecture {architecture}, which .* pads in another way"
    with pytest.raises(ConfigError, match=reason) if refused else nullcontext():
        check(tmp_path, found, model={"name": name})
    check(tmp_path, found, accept_any=True)


@pytest.mark.parametrize("config", [[1], "text", {"num_classes": "many"}, changed(mean=3)])
def test_a_config_that_is_none_is_refused(tmp_path: Path, config: Any) -> None:
    with pytest.raises(DataError, match=r"config\.json: not the config of a published network"):
        check(tmp_path, config)
