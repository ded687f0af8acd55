"""Calibration measures the rates of networks and of reading; a plan computes hours from them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from distill_core.config.load import load_run
from distill_core.config.schema import RunConfig
from distill_core.data.detection.speed import reading_rates
from tasks.calibration import calibrate
from tasks.execution import Execution
from tests.support.cli import Distill
from tests.support.pipeline import TINY
from tests.support.tiny import tiny_run

CLASS_WISE = (
    "recover.terms={cross_entropy: 1.0, class_bn_statistics: 0.01}",
    "recover.composition=one_class",
    "recover.batch_size=2",
)
CONVOLUTIONS = (
    "recover.terms={cross_entropy: 1.0, conv_statistics: 0.01, class_patch_statistics: 0.01}",
    "recover.convolutions={first_layer_factor: 10}",
)
ORIGINALS = (
    "recover.terms={feature_originals: 1.0}",
    "recover.originals={images: 2, layer: 4}",
    "recover.init=mosaic",
    "recover.mosaic={crops: 1, factor: 2, scale: [1, 1]}",
)
SMALL = ("squeeze.model.width=4", "recover.steps=4", "ipc=2", "recover.ipc_range=2")


def measured(config: RunConfig, store: Path) -> dict[str, float]:
    """Return the rates of one worker of this process."""
    return calibrate(config, Execution(store=str(store), local=True))


@pytest.mark.parametrize(
    "terms",
    [(), CLASS_WISE, CONVOLUTIONS, ORIGINALS],
    ids=["plain", "class statistics", "convolutions", "originals"],
)
def test_every_rate_is_positive_and_finite(tmp_path: Path, terms: tuple[str, ...]) -> None:
    config = tiny_run(*SMALL, *terms)
    assert config.recover.needs_class_statistics == bool(terms)
    rates = measured(config, tmp_path)
    assert rates.keys() == {"recover", "relabel", "forward", "train", "decode", "check"}
    assert all(math.isfinite(rate) and rate > 0 for rate in rates.values()), rates
    assert list(tmp_path.iterdir()) == []


def test_without_optimisation_there_is_no_rate_of_recover(tmp_path: Path) -> None:
    rates = measured(tiny_run(*SMALL, "recover.steps=0", "recover.init=real"), tmp_path)
    assert rates["recover"] == 0
    assert rates["relabel"] > 0


@pytest.mark.parametrize(
    "data",
    [
        {"format": "imagefolder", "path": "/nowhere"},
        {"format": "classes", "label_space": "cifar10"},
    ],
)
def test_real_images_that_cannot_be_read_have_no_rates(data: dict[str, Any]) -> None:
    config = tiny_run(*SMALL).data
    assert reading_rates(config).keys() == {"decode", "check"}
    assert reading_rates(config.model_copy(update=data)) == {}


def test_a_teacher_that_is_imported_has_no_rate_of_training(tmp_path: Path) -> None:
    imported = ("squeeze.training=null", "squeeze.checkpoint=teacher.pth")
    rates = measured(tiny_run(*SMALL, *imported), tmp_path)
    assert "train" not in rates
    assert rates["forward"] > 0


def test_a_calibrated_plan_has_hours_at_the_measured_rates(distill: Distill) -> None:
    output = distill("plan", "digits-demo", *TINY, "--calibrate", "--local", "--json")
    assert output.code == 0, output.err
    tree = json.loads(output.out)
    rates = {name: each["per_second"] for name, each in tree["rates"].items()}
    assert {each["source"] for each in tree["rates"].values()} == {"measured"}
    images = load_run("digits-demo", TINY).ipc * 10
    stages = tree["stages"]
    assert stages["recover"]["gpu_hours"] == pytest.approx(images * 4 / rates["recover"] / 3600)
    seen = tree["real_images"]["train"]  # one epoch
    tests = tree["real_images"]["test"] / rates["forward"]
    hours = (seen / rates["train"] + tests) / 3600
    assert stages["squeeze"]["gpu_hours"] == pytest.approx(hours)
    assert tree["cost"]["hours"] == pytest.approx(sum(e["gpu_hours"] for e in stages.values()))
    assert tree["cost"]["without"] == []
