from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import ValidationError

from distill_core.config.data import LabelSpaceName
from distill_core.config.load import fingerprint, load_run, to_yaml, validate_run
from distill_core.config.schema import RunConfig
from distill_core.config.training import ImportConfig
from distill_core.errors import ConfigError
from distill_core.label_spaces.facts import SPACES

KEY = '"' + 32 * "0" + '"'
MODEL = "{name: resnet18_small}"


def message(*overrides: str, name: str = "digits-demo") -> str:
    with pytest.raises(ConfigError) as caught:
        load_run(name, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_overrides_reach_any_depth_and_are_read_as_yaml() -> None:
    run = load_run("digits-demo", ["ipc=50", "recover.crop.low=0.2", "relabel.crop=null"])
    assert run.ipc == 50
    assert run.recover.crop is not None
    assert run.recover.crop.low == 0.2
    assert run.relabel.crop is None


def test_terms_are_replaced_as_a_whole() -> None:
    run = load_run("digits-demo", ["recover.terms={cross_entropy: 2}"])
    assert run.recover.terms == {"cross_entropy": 2.0}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("recover.lrr=1", ("recover.lrr", "no such key", "'lr'")),
        ("recoverr.lr=1", ("recoverr", "no such key", "'recover'")),
        ("recover.crop.lowe=1", ("recover.crop.lowe", "'low'")),
        ("ipc=0", ("ipc = 0", "greater than 0")),
        ("ipc=-1", ("ipc = -1", "greater than 0")),
        ("ipc=ten", ("ipc = 'ten'", "integer")),
        ("recover.lr=.nan", ("recover.lr", "finite")),
        ("recover.terms={tvv: 1}", ("tvv", "cross_entropy", "bn_statistics")),
        ("relabel.mix.kind=cutmixx", ("relabel.mix.kind", "cutmixx", "cutmix")),
        ("ipc", ("'ipc'", "key=value")),
        ("ipc.x=1", ("ipc is a value", "ipc.x")),
        ("data.std=[1, 0, 1]", ("std must be positive",)),
        ("data.resize=40", ("resize is required with load=center_crop",)),
        ("squeeze.training=null", ("set checkpoint", "training")),
        ("squeeze.reuse=abc", ("squeeze.reuse = 'abc'", "[0-9a-f]{32}")),
        (
            f"squeeze={{model: {MODEL}, reuse: {KEY}, start: {KEY}}}",
            ("2 of checkpoint, reuse and start are set",),
        ),
        (f"squeeze={{model: {MODEL}, start: {KEY}}}", ("start requires training",)),
        ("recover.shard_classes=2", ("shard_classes = 2 must be a multiple of 100",)),
        ("recover.shard_classes=0", ("recover.shard_classes = 0", "greater than 0")),
    ],
)
def test_an_invalid_override_gives_one_line_with_its_place_and_value(
    override: str, words: tuple[str, ...]
) -> None:
    said = message(override)
    for word in ("digits-demo", *words):
        assert word in said


def test_an_unknown_preset_gets_a_suggestion() -> None:
    assert "Did you mean 'sre2l-in1k'" in message(name="srel2-in1k")
    assert "Run `distill show`" in message(name="zzzz")


def test_a_file_extends_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: cda-cifar10\nipc: 7\nrecover: {steps: 3}\n")
    run, parent = load_run(str(path)), load_run("cda-cifar10")
    assert (run.preset, run.ipc, run.recover.steps) == ("mine", 7, 3)
    assert run.recover.crop == parent.recover.crop


def test_the_tree_is_frozen() -> None:
    run = load_run("digits-demo")
    with pytest.raises(ValidationError):
        run.ipc = 3  # type: ignore[misc]


def test_the_output_of_show_loads_as_the_same_run() -> None:
    run = load_run("cda-in21kp", ["ipc=3"])
    assert validate_run(yaml.safe_load(to_yaml(run)), where="shown") == run
    assert RunConfig.model_validate_json(run.model_dump_json()) == run


def test_the_fingerprint_differs_when_a_value_does() -> None:
    assert fingerprint(load_run("digits-demo")) == fingerprint(load_run("digits-demo"))
    assert fingerprint(load_run("digits-demo")) != fingerprint(load_run("digits-demo", ["seed=1"]))


def test_the_random_real_baseline_starts_from_real_images_and_takes_no_step() -> None:
    run = load_run("digits-demo")
    baseline = run.recover_for("random_real")
    assert (baseline.init, baseline.steps) == ("real", 0)
    assert run.recover_for("distilled") == run.recover


def test_a_label_space_must_have_as_many_classes_as_the_config() -> None:
    config = load_run("sre2l-cifar10", ["data.label_space=cifar10"])
    assert config.data.label_space == "cifar10"
    with pytest.raises(ConfigError, match=r"num_classes = 10, but label_space cifar100 has 100"):
        load_run("sre2l-cifar10", ["data.label_space=cifar100"])
    with pytest.raises(ConfigError, match=r"data\.label_space = 'cifar': input should be"):
        load_run("sre2l-cifar10", ["data.label_space=cifar"])


def test_every_named_label_space_can_be_set() -> None:
    assert get_args(LabelSpaceName) == tuple(SPACES)


def test_new_fields_are_dumped_only_where_they_are_set() -> None:
    """Fingerprints and names of stored runs therefore stay."""
    plain = load_run("sre2l-cifar10")
    assert "label_space" not in plain.model_dump(mode="json")["data"]
    assert "label_space" not in plain.data.model_dump_json()
    named = load_run("sre2l-cifar10", ["data.label_space=cifar10"])
    assert named.model_dump(mode="json")["data"]["label_space"] == "cifar10"
    assert type(named).model_validate(named.model_dump(mode="json")) == named
    assert fingerprint(plain) != fingerprint(named)
    imported = ImportConfig(top1=50.0).model_dump(mode="json")
    assert imported == {"top1": 50.0, "accept_any": False, "outputs": []}


def test_the_order_of_a_teachers_outputs_is_stated_once() -> None:
    with pytest.raises(ConfigError, match="outputs and label_space both state the order"):
        load_run("sre2l-in1k", ["squeeze.imported={label_space: imagenet-21k, outputs: [0]}"])
