"""Label spaces: the lists are those of their hashes, and other classes are refused by name."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from distill_core.data.readers.parquet_columns import label_names
from distill_core.errors import ConfigError, DataError
from distill_core.label_spaces import lists
from distill_core.label_spaces.compare import check_names, ids_of, order_in
from distill_core.label_spaces.facts import CIFAR10, SPACES, find_space
from distill_core.label_spaces.lists import class_ids, wordnet_words
from tests.support.class_lists import forget, need_timm, without_timm

LISTED = [name for name, space in SPACES.items() if space.listed]


@pytest.mark.parametrize("name", LISTED)
def test_a_list_has_the_stated_number_and_hash_in_any_order(name: str) -> None:
    need_timm()
    ids, space = class_ids(name), SPACES[name]
    assert (len(ids), len(set(ids))) == (space.count, space.count)
    assert find_space(random.Random(0).sample(ids, len(ids))) == space
    # Alphabetical order is the published one, except where ImageNet-1K comes first.
    assert (list(ids) == sorted(ids)) == (name != "imagenet-21k-ms")


def test_the_lists_are_parts_of_each_other_as_published() -> None:
    need_timm()
    sets = {name: set(class_ids(name)) for name in LISTED}
    assert sets["imagenet-21k-p"] < sets["imagenet-21k-p-fall11"] < sets["imagenet-21k"]
    assert sets["imagenet-12k"] < sets["imagenet-21k"] < sets["imagenet-21k-goog"]
    assert len(sets["imagenet-21k-goog"] - sets["imagenet-21k"]) == 2
    assert sets["tiny-imagenet"] < sets["imagenet-1k"] < sets["imagenet-21k-ms"]
    assert sets["imagenet-1k"] - sets["imagenet-21k"] == {"n04399382"}  # not in fall11


def test_every_class_of_imagenet_has_words() -> None:
    need_timm()
    words = wordnet_words()
    for name in LISTED:
        if name.startswith("imagenet") or name.startswith("tiny"):
            assert words.keys() >= set(class_ids(name))
    assert words["n01440764"] == "tench, Tinca tinca"


def test_the_classes_of_real_cifar10_are_those_of_the_space(cifar10_path: Path) -> None:
    with pq.ParquetFile(cifar10_path / "train.parquet") as file:
        names = label_names(file.schema_arrow.metadata, "label")
    check_names(names, "cifar10", where="cifar10")
    assert names == CIFAR10


def test_real_classes_of_tiny_imagenet_are_in_its_space(cifar10_path: Path) -> None:
    need_timm()
    path = cifar10_path.parent / "tiny-imagenet-50" / "classes.tsv"
    if not path.is_file():
        pytest.skip(f"no {path}; set DISTILL_TEST_DATA to run this test")
    real = [line.split("\t")[0] for line in path.read_text().splitlines()]
    assert real == list(class_ids("tiny-imagenet")[::4])  # every fourth of 200


def test_classes_are_compared_by_hash_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    need_timm()
    ids = class_ids("imagenet-1k")
    without_timm(monkeypatch)
    check_names(ids[::-1], "imagenet-1k", where="data")
    check_names(CIFAR10, "cifar10", where="data")
    with pytest.raises(ConfigError, match=r"timm, which is not installed. Install distill\[timm\]"):
        check_names(ids[1:], "imagenet-1k", where="data")
    with pytest.raises(ConfigError, match=r"Install distill\[timm\]"):
        class_ids("tiny-imagenet")
    assert wordnet_words() == {}


def test_a_list_that_timm_has_changed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_timm()
    ids = class_ids("imagenet-1k")
    folder = tmp_path / "data" / "_info"
    folder.mkdir(parents=True)
    (folder / "imagenet_synsets.txt").write_text("\n".join(("n00000001", *ids[1:])))
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(lists, "find_spec", {"timm": spec}.get)
    forget(monkeypatch)
    with pytest.raises(ConfigError, match=r"has 1,000 classes and hash \w+, expected 1,000"):
        class_ids("imagenet-1k")
    with pytest.raises(ConfigError, match=r"imagenet12k_synsets\.txt cannot be read"):
        class_ids("imagenet-12k")


def test_other_classes_are_refused_although_their_number_is_right() -> None:
    need_timm()
    names = ["n99999999", *class_ids("imagenet-1k")[1:]]
    with pytest.raises(DataError) as refused:
        check_names(names, "imagenet-1k", where="folder")
    assert str(refused.value) == (
        "folder: not the 1,000 classes of imagenet-1k: 1 ('n01440764 tench') are missing and "
        "1 ('n99999999') are not among them. Correct the dataset, or unset data.label_space."
    )


def test_the_space_that_would_fit_is_named() -> None:
    need_timm()
    with pytest.raises(DataError, match=r"They are those of imagenet-21k-p: set data\.label_space"):
        check_names(class_ids("imagenet-21k-p"), "imagenet-21k-p-fall11", where="data")


def test_a_space_without_a_list_is_compared_with_those_around_it_and_in_it() -> None:
    need_timm()
    inside = class_ids("imagenet-21k-p")
    others = [name for name in class_ids("imagenet-21k") if name not in set(inside)]
    winter = (*others, *inside)[-SPACES["imagenet-21k-winter21"].count :]
    check_names(winter, "imagenet-21k-winter21", where="data")
    with pytest.raises(DataError, match=r"19,166 classes, expected the 19,167"):
        check_names(winter[1:], "imagenet-21k-winter21", where="data")
    with pytest.raises(DataError, match=r"of which 1 \('n99999999'\) are not in imagenet-21k"):
        check_names(("n99999999", *winter[1:]), "imagenet-21k-winter21", where="data")
    other = (*winter[:-1], others[0])
    with pytest.raises(DataError, match=r"19,167 classes, without 1 \(.*\) of imagenet-21k-p"):
        check_names(other, "imagenet-21k-winter21", where="data")
    with pytest.raises(ConfigError, match="not listed anywhere"):
        class_ids("imagenet-21k-winter21")


def test_words_stand_for_ids_as_in_the_hubs_imagenet() -> None:
    """Its label names are words; of two classes with the same words, one has a number."""
    need_timm()
    ids, words = class_ids("imagenet-1k"), wordnet_words()
    cranes = [each for each in ids if words[each] == "crane"]
    assert len(cranes) == 2
    names = [words[each] + "2" * (each == cranes[1]) for each in ids]
    assert len(set(names)) == 1000
    assert ids_of(names, "imagenet-1k", where="hub") == ids
    shuffled = random.Random(1).sample(range(1000), 1000)
    expected = [ids[place] for place in shuffled]
    found = ids_of([names[place] for place in shuffled], "imagenet-1k", where="hub")
    assert set(found) == set(expected)
    assert [f for f in found if f not in cranes] == [e for e in expected if e not in cranes]
    with pytest.raises(DataError, match="not the 1,000 classes"):
        ids_of(["a fish", *names[1:]], "imagenet-1k", where="hub")


def test_outputs_are_found_by_name_whatever_their_order_and_number() -> None:
    need_timm()
    dataset, outputs = class_ids("imagenet-21k-p"), class_ids("imagenet-21k-ms")
    places = order_in(dataset, outputs, where="teacher")
    assert [outputs[place] for place in places] == list(dataset)
    with pytest.raises(ConfigError, match=r"no output for 1 \('n04399382 teddy"):
        order_in(class_ids("imagenet-1k"), class_ids("imagenet-21k-goog"), where="teacher")
