"""Rules that divide a dataset: deterministic, by name, class by class."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_core.config.split_rule import SplitRule, parse_rule
from distill_core.data.splits.rules import RULES, chosen_images, count_notice
from distill_core.label_spaces.facts import SPACES

TEXTS = ("fraction:0.2", "first:3", "per_class:3", "imagenet21k", "imagenet21k_p")
FILES = st.lists(st.text(max_size=6), unique=True, max_size=40)


def taken(text: str, names: list[str], wnid: str = "n1") -> set[str]:
    """Return the names of the test images of a class."""
    mask = chosen_images(parse_rule(text), wnid, names)
    assert mask is not None
    return {name for name, chosen in zip(names, mask, strict=True) if chosen}


def test_every_rule_can_be_named() -> None:
    assert {parse_rule(text).kind for text in TEXTS} == set(RULES)


@pytest.mark.parametrize(
    "text",
    [
        *("", "first", "first:", "first:0", "first:-1", "first:1.5", "first:99999999999999999999"),
        *("fraction:0", "fraction:1", "fraction:nan", "fraction:x", "imagenet21k:3", "random:3"),
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected fraction:F"):
        parse_rule(text)


@given(names=FILES, order=st.randoms(use_true_random=False))
@pytest.mark.parametrize("text", TEXTS[:4])
def test_a_rule_depends_on_names_alone_and_leaves_images_to_train_on(
    text: str, names: list[str], order: random.Random
) -> None:
    test = taken(text, names)
    shuffled = order.sample(names, len(names))
    assert taken(text, shuffled) == test
    assert len(test) < max(len(names), 1)
    if text.startswith("fraction") and len(names) > 1:
        assert test


def test_the_first_images_are_the_first_by_name() -> None:
    names = [f"n1_{number}.JPEG" for number in range(20)]
    assert taken("first:3", names) == {"n1_0.JPEG", "n1_1.JPEG", "n1_10.JPEG"}  # by bytes
    assert len(taken("first:3", names[:5])) == 2  # at most half
    assert taken("first:3", names[:1]) == set()
    assert taken("imagenet21k", names) == {"n1_0.JPEG", "n1_1.JPEG"}  # a tenth


def test_the_rule_of_imagenet_21k_p_takes_50_of_more_than_500() -> None:
    names = [f"n1_{number:04d}.JPEG" for number in range(501)]
    assert taken("imagenet21k_p", names) == set(names[:50])
    assert chosen_images(parse_rule("imagenet21k_p"), "n1", names[:500]) is None
    assert parse_rule("imagenet21k_p").drops_classes
    assert not parse_rule("imagenet21k").drops_classes


def test_an_added_image_moves_no_other_one() -> None:
    names = [f"{number}.png" for number in range(1000)]
    before, after = taken("fraction:0.2", names[:900]), taken("fraction:0.2", names)
    assert before == after & set(names[:900])
    assert 0.15 < len(after) / 1000 < 0.25


def test_classes_with_equal_names_do_not_give_the_same_images() -> None:
    names = [f"{number}.png" for number in range(100)]
    for text in ("fraction:0.2", "per_class:20"):
        assert taken(text, names, "cat") != taken(text, names, "dog")


def test_names_that_are_not_unicode_are_divided_like_others() -> None:
    names = [f"\udcff{number}" for number in range(10)]
    for text in TEXTS[:4]:
        assert len(taken(text, names)) < 10


def test_a_rule_never_changes() -> None:
    """Images must not move between the splits of stored datasets."""
    names = [f"{number}.png" for number in range(12)]
    masks = {
        text: "".join(map(str, np.where(chosen_images(parse_rule(text), "cat", names), 1, 0)))
        for text in TEXTS[:4]
    }
    assert masks == {
        "fraction:0.2": "100001011010",
        "first:3": "110000000010",
        "per_class:3": "100000001010",
        "imagenet21k": "100000000000",
    }


@pytest.mark.parametrize("space", ["imagenet-21k-p", "imagenet-21k-p-fall11"])
def test_published_numbers_of_images_are_compared(space: str) -> None:
    rule, published = SplitRule("imagenet21k_p"), SPACES[space].images
    assert published is not None
    train, test = published
    by_rule = 50 * SPACES[space].count  # two fewer than published, of fall11
    assert count_notice(rule, space, train - 20, by_rule) == ""
    text = count_notice(rule, space, train - 20_000, test)
    assert f"has {train - 20_000:,} and {test:,} images to train and to test on" in text
    assert f"published are {train:,} and {test:,} for {space}" in text
    assert count_notice(rule, None, 1, 1) == ""
    assert count_notice(SplitRule("first", 3), space, 1, 1) == ""


def test_the_images_of_fall11_are_counted_together() -> None:
    rule = SplitRule("imagenet21k")
    assert count_notice(rule, "imagenet-21k", 14_000_000, 197_122) == ""
    assert "the dataset has 13,000,000 images" in count_notice(
        rule, "imagenet-21k", 12_500_000, 500_000
    )
