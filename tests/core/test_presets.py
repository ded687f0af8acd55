from __future__ import annotations

import json
from importlib import resources

import pytest

from distill_core.config.load import load_run, preset_names
from distill_core.config.recovery import RollConfig
from distill_core.recover.terms import build_objective
from tests.golden.update import preset_file

OPENING = ("arXiv:", "Command: distill run", "Hardware", "xpected")  # of the comment of each
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


@pytest.mark.parametrize("data", DATASETS)
@pytest.mark.parametrize("method", ["sre2l", "cda"])
def test_a_published_preset_opens_with_paper_command_hardware_and_number(
    method: str, data: str
) -> None:
    name = f"{method}-{data}"
    text = (resources.files("distill_core.presets") / f"{name}.yaml").read_text(encoding="utf-8")
    opening = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    assert text.startswith("#")
    assert all(words in opening for words in OPENING)
    assert f"distill run {name} " in opening


@pytest.mark.parametrize(
    ("name", "mode", "pixels"),
    [
        ("sre2l-cifar100", "one_sided", 4),
        ("sre2l-tiny", "symmetric", 4),
        ("cda-tiny", "one_sided", 4),
        ("sre2l-in1k", "one_sided", 32),
        ("cda-in1k", "one_sided", 32),
        ("cda-in21kp", "one_sided", 32),
    ],
)
def test_the_roll_is_that_of_the_published_script(name: str, mode: str, pixels: int) -> None:
    assert load_run(name).recover.roll == RollConfig.model_validate(
        {"mode": mode, "pixels": pixels}
    )


def test_sre2l_on_cifar_shows_the_whole_image_unflipped() -> None:
    recover = load_run("sre2l-cifar100").recover
    assert (recover.crop, recover.flip) == (None, False)


@pytest.mark.parametrize("name", ["sre2l-in1k", "cda-in1k"])
def test_a_checkpoint_is_one_override_away(name: str) -> None:
    run = load_run(name, ["squeeze.checkpoint=teacher.pth", "squeeze.training=null"])
    assert (run.squeeze.checkpoint, run.squeeze.training) == ("teacher.pth", None)
    assert load_run(name, ["squeeze.checkpoint=teacher.pth"]).squeeze.checkpoint == "teacher.pth"
