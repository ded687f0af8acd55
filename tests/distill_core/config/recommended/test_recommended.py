"""The recommended config over a grid of datasets and machines: valid, and within the memory."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import pytest
import yaml

from distill_core.config.load import load_text, preset_names
from distill_core.config.recommended.document import document, readable
from distill_core.config.recommended.facts import Device, Facts, Machine, Pixels, Shapes
from distill_core.config.recommended.settings import Setting, choose, settings, with_given
from distill_core.config.recommended.sizes import PART, choose_view, largest_ipc
from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from distill_core.recover.requirements import check_networks
from flows.runs.checks.machine import distilled_bytes

PIXELS = Pixels(256, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
LAPTOP = Machine("cpu", 8 * 2**30)
GPU = Machine("cuda", 16 * 2**30)
CLASSES = (2, 10, 1_000, 1_001, 21_841)
PER_CLASS = (1, 20, 1_300)
SIDES = (8, 32, 100, 4_000)


def facts(*, classes: int = 10, per_class: int = 500, side: int = 32, **changes: object) -> Facts:
    """Return the facts about an image folder without a test split."""
    return replace(
        Facts(
            name="mine",
            data={"path": "/data/mine", "format": "imagefolder", "train": ".", "split": "first:1"},
            classes=tuple(f"class {number}" for number in range(classes)),
            images=classes * per_class,
            shapes=Shapes(side, side),
        ),
        **changes,  # type: ignore[arg-type]
    )


def text_of(found: Facts, machine: Machine) -> str:
    return document(settings(choose(found, machine), PIXELS), ["About it."], found.classes)


def run_of(found: Facts, machine: Machine) -> RunConfig:
    return load_text(text_of(found, machine), preset="mine", where="mine")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("classes", CLASSES)
def test_the_config_is_valid_and_fits_the_memory_for_every_dataset(
    device: Device, classes: int
) -> None:
    machine = Machine(device, 8 * 2**30)
    for per_class, side in product(PER_CLASS, SIDES):
        run = run_of(facts(classes=classes, per_class=per_class, side=side), machine)
        check_networks(run)
        assert 1 <= run.ipc <= max(1, per_class // 10)
        assert PART * distilled_bytes(run) <= machine.memory
        assert run.data.num_classes == classes
        assert run.relabel.views == run.posttrain.epochs
        assert run.squeeze.training is not None
        assert run.posttrain.batch_size <= max(10, classes * run.ipc)


def test_the_images_of_many_classes_are_as_many_as_the_memory_allows() -> None:
    fitting = largest_ipc(1_000, 224, 2**34)
    run = run_of(facts(classes=1_000, per_class=100_000, side=224), Machine("cuda", 2**34))
    assert run.ipc == fitting < 50


def test_many_classes_get_smaller_images_until_one_of_each_fits_the_memory() -> None:
    many = facts(classes=21_841, side=224)
    sides = [choose(many, Machine("cuda", 2**power)).view.side for power in (36, 33, 31, 29)]
    assert sides == [224, 128, 64, 32]
    with pytest.raises(ConfigError, match=r"21,841 classes at 16 px: .* Set a smaller data\.side"):
        choose(many, Machine("cuda", 2**20))
    with pytest.raises(ConfigError, match=r"21,841 classes at 224 px"):
        choose(replace(many, given={"data.side": 224}), Machine("cuda", 2**30))


def test_the_method_is_that_of_the_results_and_does_without_statistics_of_many_classes() -> None:
    methods = [
        choose(facts(classes=classes, side=side), GPU).method
        for classes in (1_000, 1_001)
        for side in (64, 224)
    ]
    assert methods == ["edc-crops-cifar10", "edc-in1k", "rded-tiny", "rded-in1k"]
    assert set(methods) <= set(preset_names())


@pytest.mark.parametrize(
    ("short", "long", "cpu", "cuda"),
    [
        (8, 8, (16, None), (16, None)),
        (28, 28, (32, None), (32, None)),
        (32, 32, (32, None), (32, None)),
        (64, 64, (64, None), (64, None)),
        (100, 120, (64, None), (128, None)),
        (200, 200, (64, None), (224, None)),
        (375, 500, (64, 73), (224, 256)),
    ],
)
def test_the_side_follows_from_the_images_and_the_device(
    short: int, long: int, cpu: tuple[int, int | None], cuda: tuple[int, int | None]
) -> None:
    for device, expected in (("cpu", cpu), ("cuda", cuda)):
        view = choose_view(Shapes(short, long), 10, Machine(device, 2**33), {})  # type: ignore[arg-type]
        assert (view.side, view.resize) == expected


@pytest.mark.parametrize("side", [32, 224])
def test_networks_follow_from_the_side_and_the_device(side: int) -> None:
    cpu, gpu = (run_of(facts(side=side), machine) for machine in (LAPTOP, GPU))
    assert cpu.squeeze.model.title == "resnet18_small-w16"
    assert gpu.squeeze.model.title == ("resnet18_small" if side == 32 else "resnet18")
    for run in (cpu, gpu):
        assert run.posttrain.students == (run.squeeze.model,)
        assert run.squeeze.pool == ()


def test_trainings_on_a_cpu_do_not_grow_with_the_dataset_until_the_fewest_epochs() -> None:
    seen = {
        per_class: run.squeeze.training.epochs * 10 * per_class
        for per_class in (50, 500, 1_000, 5_000)
        if (run := run_of(facts(per_class=per_class), LAPTOP)).squeeze.training
    }
    assert seen[50] < seen[500] == pytest.approx(seen[1_000], rel=0.1)
    assert seen[5_000] == 4 * 50_000


def test_settings_of_the_user_change_the_sizes_that_depend_on_them() -> None:
    given = run_of(facts(given={"ipc": 5, "data.side": 64}), LAPTOP)
    assert (given.ipc, given.data.side, given.recover.ipc_range) == (5, 64, 5)
    assert given.squeeze.training is not None
    assert given.squeeze.training.augment.pad_crop == 8


def test_a_rule_that_divides_the_images_leaves_fewer_to_train_on() -> None:
    ruled = facts(data={"path": "/p", "format": "tars", "split": "fraction:0.2"})
    assert (ruled.train_images, ruled.per_class) == (4_000, 400)
    assert run_of(ruled, LAPTOP).data.split == "fraction:0.2"
    assert facts(per_class=1, data=ruled.data).per_class == 1


def test_every_value_has_a_reason_in_the_same_line_or_in_the_line_above() -> None:
    lines = text_of(facts(), LAPTOP).splitlines()
    body = [line for line in lines if not line.endswith(":")]
    for number, line in enumerate(body):
        if not line.lstrip().startswith("#"):
            assert " # " in line or body[number - 1].lstrip().startswith("# "), line
    assert all(len(line) <= 100 for line in lines if "#" in line)
    assert any(line == "# About it." for line in lines)


def test_the_names_of_the_classes_are_in_a_comment_and_cannot_leave_it() -> None:
    names = ("rose", "new\nline", "next\u0085line", "separated\u2028line", "Blüte", "x: [")
    text = document(settings(choose(facts(), LAPTOP), PIXELS), [], names)
    assert yaml.safe_load(text)["data"]["name"] == "mine"
    assert r"new\nline, next\x85line, separated\u2028line, Blüte" in text
    assert readable("\x1b[31m") == r"\x1b[31m"
    many = document([], [], [f"class{number}" for number in range(150)])
    assert re.sub(r"\n# ", " ", many).strip().endswith("class99 and 50 more.")


@pytest.mark.parametrize("path", ["/a folder/ü", "/tmp/a: b", "/x # y", "s3://b/p", "/'\"{}[],&*"])
def test_paths_survive_the_document(path: str) -> None:
    found = facts(data={"path": path, "format": "imagefolder"})
    assert run_of(found, LAPTOP).data.path == path


def test_settings_of_the_user_are_written_in_place_of_the_chosen_ones() -> None:
    given = {"ipc": 3, "squeeze.model.width": 8, "seed": 7, "squeeze.training": {"epochs": 1}}
    written = with_given(settings(choose(facts(), LAPTOP), PIXELS), given)
    tree = yaml.safe_load(document(written, [], []))
    assert (tree["ipc"], tree["seed"]) == (3, 7)
    assert tree["squeeze"]["model"] == {"name": "resnet18_small", "width": 8}
    assert tree["squeeze"]["training"] == {"epochs": 1}
    nested = with_given([Setting("a.b", {"c": {"d": 1}}, "")], {"a.b.c.e": 2, "a.b.f.g": 3})
    assert nested[0].value == {"c": {"d": 1, "e": 2}, "f": {"g": 3}}
