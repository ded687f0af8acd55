from __future__ import annotations

import json

import pytest

from distill_core.config.load import load_run, preset_names
from distill_core.recover.terms import build_objective
from tests.golden.update import preset_file

DATASETS = ("cifar10", "cifar100", "tiny", "in1k", "in21kp", "in21k")


def test_every_method_has_a_preset_for_every_dataset() -> None:
    expected = {f"{method}-{data}" for method in ("sre2l", "cda") for data in DATASETS}
    assert expected <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_states_source_and_expectation_and_equals_its_golden_tree(name: str) -> None:
    run = load_run(name)
    assert len(run.source) > 10
    assert len(run.expected) > 10
    assert build_objective(run.recover.terms)
    assert run.model_dump(mode="json") == json.loads(preset_file(name).read_text())


@pytest.mark.parametrize("data", DATASETS)
def test_cda_is_sre2l_with_a_cosine_curriculum(data: str) -> None:
    sre2l, cda = load_run(f"sre2l-{data}"), load_run(f"cda-{data}")
    assert sre2l.recover.crop is None or sre2l.recover.crop.mode == "constant"
    assert cda.recover.crop is not None
    assert (cda.recover.crop.mode, cda.recover.crop.low) == ("cosine", 0.08)
    assert cda.data == sre2l.data


def test_21k_lives_in_raw_pixels_with_cutout_views_without_flip() -> None:
    run = load_run("cda-in21kp")
    assert (run.data.num_classes, run.data.load) == (10450, "squish")
    assert (run.data.mean, run.data.std) == ((0, 0, 0), (1, 1, 1))
    assert (run.relabel.mix.kind, run.relabel.flip) == ("cutout", False)
    assert (run.recover.lr, run.recover.terms["bn_statistics"], run.recover.steps) == (
        0.05,
        0.25,
        2000,
    )
    everything = load_run("cda-in21k")
    assert everything.data.num_classes == 21841
    assert everything.expected == "not published"
