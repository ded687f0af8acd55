"""Imported teachers whose outputs are those of a named label space are converted by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from distill_core.keys import squeeze_key
from distill_core.label_spaces.facts import CIFAR10
from distill_core.label_spaces.lists import class_ids, wordnet_words
from distill_core.models.build import head_name, skeleton
from distill_core.models.spec import TeacherSpec
from distill_core.squeeze.importing import import_teacher
from distill_core.squeeze.outputs import count_outputs, places_of, take_outputs
from distill_core.squeeze.result import SqueezedTeacher
from distill_core.squeeze.teacher import train_teacher
from tests.support.class_lists import need_timm
from tests.support.teacher_training import TEST, TRAIN, run, split

MANY = split(150, 1)  # test images
CLASSES = ("truck", "cat", "dog")  # of the dataset, by id


@pytest.fixture(scope="module")
def weights() -> bytes:
    """Return the weights of an accurate teacher of the three classes."""
    config = run(training={"epochs": 8, "augment": {"pad_crop": 1}})
    return train_teacher(TRAIN, TEST, run=config, class_hash="ab").files["safetensors"]


def of_cifar10(weights: bytes) -> bytes:
    """Return a teacher of CIFAR-10 that knows the three classes as before, and seven others."""
    rng, state = torch.Generator().manual_seed(0), load(weights)
    for name in ("fc.weight", "fc.bias"):
        rows = torch.randn(10, *state[name].shape[1:], generator=rng)
        rows[[CIFAR10.index(each) for each in CLASSES]] = state[name]
        state[name] = rows
    return save(state)


def importing(path: Path, data: dict[str, Any] | None = None, **imported: Any) -> RunConfig:
    squeeze = {"checkpoint": str(path), "training": None, "imported": imported or None}
    config = run(squeeze=squeeze)
    return config.model_copy(update={"data": config.data.model_copy(update=data or {})})


def taken(
    folder: Path, weights: bytes, classes: tuple[str, ...] = CLASSES, **imported: Any
) -> SqueezedTeacher:
    path = folder / "teacher.safetensors"
    path.write_bytes(weights)
    config = importing(path, **imported)
    return import_teacher(MANY, run=config, class_hash="ab", classes=classes)


def test_a_teacher_of_a_larger_label_space_is_converted_by_name(
    tmp_path: Path, weights: bytes
) -> None:
    plain = taken(tmp_path, weights)
    converted = taken(tmp_path, of_cifar10(weights), label_space="cifar10")
    assert converted.accuracy == plain.accuracy
    assert converted.accuracy.top1 > 80
    before, after = (load(each.files["safetensors"]) for each in (plain, converted))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert TeacherSpec.from_json(converted.files["json"]).num_classes == 3


def test_without_its_label_space_the_same_file_is_refused(tmp_path: Path, weights: bytes) -> None:
    with pytest.raises(ConfigError, match="has 10 classes, the dataset has 3") as refused:
        taken(tmp_path, of_cifar10(weights))
    assert "outputs are those of cifar10, set squeeze.imported.label_space=cifar10;" in str(
        refused.value
    )


def test_a_class_that_the_teacher_does_not_know_is_named(tmp_path: Path, weights: bytes) -> None:
    with pytest.raises(ConfigError, match=r"has no output for 1 \('giraffe'\) of the 3 classes"):
        taken(
            tmp_path,
            of_cifar10(weights),
            classes=("truck", "cat", "giraffe"),
            label_space="cifar10",
        )


@pytest.mark.parametrize("space", ["imagenet-21k", "imagenet-21k-goog", "imagenet-21k-ms"])
def test_the_head_of_a_published_order_gives_the_outputs_of_the_dataset(space: str) -> None:
    """The heads of timm's networks of 21,841, 21,843 and 21,842 outputs, for 10,450 classes."""
    need_timm()
    classes, outputs = class_ids("imagenet-21k-p"), class_ids(space)
    config = importing(Path("x"), label_space=space)
    imported = config.squeeze.imported
    assert imported is not None
    count = count_outputs(imported, len(classes))
    model = skeleton(config.squeeze.model, count).to_empty(device="cpu")
    head = model.get_submodule(head_name(model))
    assert isinstance(head, torch.nn.Linear)
    with torch.no_grad():
        head.bias.copy_(torch.arange(count))
    places = places_of(imported, config.data, classes, where="teacher")
    take_outputs(model, places)
    assert (head.out_features, len(head.weight)) == (10450, 10450)
    assert [outputs[int(place)] for place in head.bias] == list(classes)


def test_a_dataset_whose_classes_are_words_is_converted_by_its_own_label_space() -> None:
    need_timm()
    ids, words = class_ids("tiny-imagenet")[::-1], wordnet_words()
    names = tuple(words[each] for each in ids)
    config = importing(
        Path("x"), {"num_classes": 200, "label_space": "tiny-imagenet"}, label_space="imagenet-1k"
    )
    assert config.squeeze.imported is not None
    places = places_of(config.squeeze.imported, config.data, names, where="teacher")
    outputs = class_ids("imagenet-1k")
    assert [outputs[place] for place in places] == list(ids)


def test_the_label_space_of_the_outputs_enters_the_key_of_the_teacher() -> None:
    def key(**imported: Any) -> str:
        config = importing(Path("x"), **imported)
        return squeeze_key(config, class_hash="c", train="a", test="b", checkpoint="sha")

    assert key() == key(top1=50.0)
    assert len({key(), key(label_space="cifar10"), key(label_space="cifar100")}) == 3


def test_a_description_without_a_label_space_is_stored_as_before(tmp_path: Path) -> None:
    teacher = train_teacher(TRAIN, TEST, run=run(training={"epochs": 1}), class_hash="ab")
    assert b"label_space" not in teacher.files["json"]
    spec = TeacherSpec.from_json(teacher.files["json"])
    named = spec.model_copy(update={"label_space": "cifar10"})
    assert TeacherSpec.from_json(named.to_json()) == named
