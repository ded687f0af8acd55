from __future__ import annotations

import json
import re
from importlib import resources

import pytest
import yaml

from distill_core.config.load import load_run, preset_names
from distill_core.config.recovery_settings import RollConfig
from distill_core.models.ensemble import voters
from distill_core.recover.terms import build_objective
from tests.support.golden_files import preset_file
from tests.support.published import DATASETS, METHODS, PUBLISHED

OPENING = ("arXiv:", "Command: distill run", "Hardware", "xpected")  # of the comment of each
DEMOS = {"digits-demo", "digits-demo-16px", "rehearsal-21k", "cda-cifar10-cpu", "in1k-lite-cpu"}


def written(name: str) -> str:
    return (resources.files("distill_core.presets") / f"{name}.yaml").read_text(encoding="utf-8")


def test_every_preset_is_a_method_on_a_dataset_or_a_demo() -> None:
    assert set(preset_names()) == {*PUBLISHED, *DEMOS}


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_states_source_and_expectation_and_equals_its_golden_tree(name: str) -> None:
    run = load_run(name)
    assert len(run.source) > 10
    assert len(run.expected) > 10
    terms = [name for name, weight in run.recover.terms.items() if weight]
    assert list(build_objective(run.recover.terms)) == terms != []  # the order of its sums
    assert run.model_dump(mode="json") == json.loads(preset_file(name).read_text())


@pytest.mark.parametrize("data", DATASETS)
def test_cda_is_sre2l_with_a_cosine_curriculum(data: str) -> None:
    sre2l, cda = load_run(f"sre2l-{data}"), load_run(f"cda-{data}")
    assert sre2l.recover.crop is None or sre2l.recover.crop.mode == "constant"
    assert cda.recover.crop is not None
    assert (cda.recover.crop.mode, cda.recover.crop.low) == ("cosine", 0.08)
    assert cda.data == sre2l.data


def test_imagenet_21k_presets_use_raw_pixels_and_cutout_views_without_flip() -> None:
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


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_states_its_source_its_expected_result_and_how_it_differs(name: str) -> None:
    own = yaml.safe_load(written(name))
    assert all(len(own[key]) > 10 for key in ("source", "expected", "differs"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_preset_opens_with_paper_command_hardware_and_number(name: str) -> None:
    text = written(name)
    opening = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    assert text.startswith("#")
    assert all(words in opening for words in OPENING)
    assert f"distill run {name} " in opening


@pytest.mark.parametrize("data", DATASETS)
def test_random_real_differs_from_sre2l_in_its_images_alone(data: str) -> None:
    sre2l, random_real = load_run(f"sre2l-{data}"), load_run(f"random-real-{data}")
    assert (random_real.recover.init, random_real.recover.steps) == ("real", 0)
    same = ("ipc", "data", "squeeze", "relabel")
    assert [getattr(random_real, part) for part in same] == [getattr(sre2l, part) for part in same]
    sets = {"sets": random_real.posttrain.sets}
    assert random_real.posttrain == sre2l.posttrain.model_copy(update=sets)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith(("her", "k-c"))])
def test_a_coreset_describes_each_class_once(name: str) -> None:
    run = load_run(name)
    assert run.recover.steps == 0
    assert run.recover.ipc_range >= run.ipc


@pytest.mark.parametrize("data", METHODS["rded"])
def test_rded_optimises_no_pixel_and_tiles_large_images_alone(data: str) -> None:
    run = load_run(f"rded-{data}")
    assert run.recover.mosaic is not None
    assert (run.recover.steps, run.recover.mosaic.factor) == (0, 2 if data == "in1k" else 1)
    assert (run.relabel.scheme, run.posttrain.schedule.zeta) == ("online", 2.0)
    assert run.relabel.patches == (2 if data == "in1k" else None)


@pytest.mark.parametrize("data", METHODS["edc"])
def test_edc_weighs_every_class_and_the_batch_s_alike_and_crops_less_than_gvbsm(data: str) -> None:
    edc, gvbsm = load_run(f"edc-{data}").recover, load_run(f"gvbsm-{data}").recover
    for kind in ("bn", "conv", "patch"):
        weight = edc.terms[f"{kind}_statistics"]  # type: ignore[index]
        assert weight == edc.terms[f"class_{kind}_statistics"]  # type: ignore[index]
        assert f"class_{kind}_statistics" not in gvbsm.terms
    assert edc.crop is not None
    assert edc.crop.low == 0.5
    assert edc.composition == gvbsm.composition == "class_major"


@pytest.mark.parametrize("data", METHODS["gvbsm"])
def test_gvbsm_on_small_images_rolls_them_and_has_its_own_patches_and_averages(data: str) -> None:
    run = load_run(f"gvbsm-{data}")
    recover, training = run.recover, run.squeeze.training
    assert recover.convolutions is not None
    assert training is not None
    small = data != "in1k"
    published = (recover.convolutions.drop_rate, recover.convolutions.patch)
    assert published == ((0.4, 4) if small else (0.0, 16))
    assert recover.statistics_decay == (0.8 if small else 0.4)
    assert (recover.crop is None) == small
    assert recover.roll.pixels == 32
    lengths = {"cifar10": 5, "cifar100": 50, "tiny": 50, "in1k": 90}
    assert training.epochs == lengths[data]
    assert (training.optimizer.weight_decay == 0.0) == small


@pytest.mark.parametrize("data", METHODS["cudd"])
def test_cudd_is_sre2l_in_two_rounds_from_judged_images_and_against_a_student(data: str) -> None:
    cudd, sre2l = load_run(f"cudd-{data}"), load_run(f"sre2l-{data}")
    assert len(cudd.round_starts) == 2
    assert (cudd.recover.init, cudd.rounds and cudd.rounds.student) == (
        "judged",
        cudd.squeeze.model,
    )
    assert cudd.recover.terms == sre2l.recover.terms | {"start_distance": 1.0, "adversarial": 1.0}


@pytest.mark.parametrize("data", METHODS["wmdd"])
def test_wmdd_has_a_point_for_every_image_of_a_class_and_one_class_in_a_batch(data: str) -> None:
    run = load_run(f"wmdd-{data}")
    assert run.recover.barycentre is not None
    assert run.recover.barycentre.points == run.ipc == run.recover.batch_size
    assert run.recover.composition == "one_class"


@pytest.mark.parametrize("data", METHODS["cim"])
def test_cim_compares_features_of_tiles_with_nothing_else_beside(data: str) -> None:
    run = load_run(f"cim-{data}")
    assert run.recover.active_terms == {"feature_originals"}
    assert run.recover.tiles == 2


@pytest.mark.parametrize("data", METHODS["cvdd"])
def test_cvdd_lets_every_pair_of_five_networks_vote_once_on_ten_images(data: str) -> None:
    run = load_run(f"cvdd-{data}")
    committee = run.recover.committee
    assert committee is not None
    chosen = {voters(committee, 5, seed=0, ipc_index=index)[0] for index in range(run.ipc)}
    assert len(chosen) == 10
    assert len({run.squeeze.member(number).model.name for number in run.recover.teachers}) == 5
    assert run.relabel.teachers == ((0,) if data == "in1k" else run.recover.teachers)


@pytest.mark.parametrize("data", METHODS["cvdd"])
def test_cvdd_lists_the_pair_that_votes_on_one_image_per_class(data: str) -> None:
    changes = re.findall(r"recover\.[a-z.]+=\[[^]]+\]", load_run(f"cvdd-{data}").differs)
    run = load_run(f"cvdd-{data}", ["ipc=1", *changes])
    pairs = {
        "cifar10": ["mobilenet_v2", "densenet121"],
        "cifar100": ["shufflenet_v2", "mobilenet_v2"],
        "tiny": ["resnet18", "mobilenet_v2"],
        "in1k": ["resnet18", "shufflenet_v2"],
    }
    names = [run.squeeze.member(number).model.name for number in run.recover.teachers]
    for name, expected in zip(names, pairs[data], strict=True):
        assert name.startswith(expected)


@pytest.mark.parametrize("data", METHODS["fadrm-plus"])
def test_fadrm_plus_uses_four_networks_of_the_size_of_its_images(data: str) -> None:
    run = load_run(f"fadrm-plus-{data}")
    names = [run.squeeze.member(number).model.name for number in run.recover.teachers]
    assert run.recover.teachers == run.relabel.teachers
    assert len(set(names)) == 4
    assert all(name.endswith("_small") == (run.data.side < 100) for name in names)


@pytest.mark.parametrize("data", METHODS["lpld"])
def test_lpld_puts_every_image_of_a_class_into_one_batch(data: str) -> None:
    run = load_run(f"lpld-{data}")
    assert run.recover.composition == "one_class"
    assert run.recover.batch_size >= run.ipc
    assert run.recover.ipc_range >= run.ipc
    assert "bn_statistics" not in run.recover.terms
    assert (run.relabel.prune, run.posttrain.view_order) == (0.975, "random")
    assert run.relabel.stored_views == {100: 2, 300: 7}[run.posttrain.epochs]


@pytest.mark.parametrize("data", METHODS["lpqld"])
def test_lpqld_stores_a_few_logits_of_the_images_of_lpld(data: str) -> None:
    lpqld, lpld = load_run(f"lpqld-{data}"), load_run(f"lpld-{data}")
    assert (lpqld.recover, lpqld.data) == (lpld.recover, lpld.data)
    assert lpqld.relabel.topk is not None
    assert lpqld.relabel.topk < lpqld.data.num_classes / 10
    assert lpqld.posttrain.calibrate_student
    assert lpqld.posttrain.temperature_decay is not None


@pytest.mark.parametrize("data", METHODS["delt"])
def test_delt_starts_from_whole_images_and_its_groups_divide_the_images_of_a_class(
    data: str,
) -> None:
    run = load_run(f"delt-{data}")
    mosaic = run.recover.mosaic
    assert mosaic is not None
    assert (mosaic.crops, mosaic.scale, mosaic.order) == (1, (1.0, 1.0), "median")
    assert (run.recover.late_groups, run.recover.ipc_range) == (8, run.ipc)


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


def test_sre2l_on_cifar_neither_crops_nor_flips() -> None:
    recover = load_run("sre2l-cifar100").recover
    assert (recover.crop, recover.flip) == (None, False)


@pytest.mark.parametrize("name", ["sre2l-in1k", "cda-in1k"])
def test_a_checkpoint_is_one_override_away(name: str) -> None:
    run = load_run(name, ["squeeze.checkpoint=teacher.pth", "squeeze.training=null"])
    assert (run.squeeze.checkpoint, run.squeeze.training) == ("teacher.pth", None)
    assert load_run(name, ["squeeze.checkpoint=teacher.pth"]).squeeze.checkpoint == "teacher.pth"


@pytest.mark.parametrize("name", preset_names())
def test_no_preset_chooses_a_precision_for_its_user(name: str) -> None:
    assert load_run(name).precision == "float32"  # fast on every CPU
