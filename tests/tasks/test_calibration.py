"""Calibration measures the rates of recover and relabel, and a plan computes hours from them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from distill_core.config.load import load_run
from distill_core.config.schema import RunConfig
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
def test_both_rates_are_positive_and_finite(tmp_path: Path, terms: tuple[str, ...]) -> None:
    config = tiny_run(*SMALL, *terms)
    assert config.recover.needs_class_statistics == bool(terms)
    rates = measured(config, tmp_path)
    assert rates.keys() == {"recover", "relabel"}
    assert all(math.isfinite(rate) and rate > 0 for rate in rates.values()), rates
    assert list(tmp_path.iterdir()) == []


def test_without_optimisation_there_is_no_rate_of_recover(tmp_path: Path) -> None:
    rates = measured(tiny_run(*SMALL, "recover.steps=0", "recover.init=real"), tmp_path)
    assert rates["recover"] == 0
    assert rates["relabel"] > 0


def test_a_calibrated_plan_has_hours_at_the_measured_rate(distill: Distill) -> None:
    output = distill("plan", "digits-demo", *TINY, "--calibrate", "--local", "--json")
    assert output.code == 0, output.err
    cost = json.loads(output.out)["cost"]
    images = load_run("digits-demo", TINY).ipc * 10
    assert 0 < cost["rate"] < math.inf
    assert cost["recover_hours"] == pytest.approx(images * 4 / cost["rate"] / 3600)
    assert cost["hours"] > cost["recover_hours"]
