"""Rules that divide a dataset without a test split: named, deterministic, class by class.

A rule looks at the names of a class's images alone. ``fraction`` and ``per_class`` order them by a
hash of class and name, so that neighbouring names, which are often similar images, do not stay
together. With ``fraction``, images that are added later move none of the others, except in classes
of very few images. The other rules take the first images by name, in the order of UTF-8 bytes.

Axes: n images of a class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from distill_core.config.split_rule import SplitRule
from distill_core.label_spaces.facts import SPACES

LEAST = 500  # images that a class of ImageNet-21K-P has more of
VALIDATION = 50  # images of each of its classes that validate
SHARE = 10  # of a class of ImageNet-21K, at most 1 / SHARE of the images are test images
FALL11_IMAGES = 14_197_122  # published, in 21,841 classes
TOLERANCE = 1e-4  # relative difference from published numbers that is not worth a notice


def chosen_images(rule: SplitRule, wnid: str, names: Sequence[str]) -> np.ndarray | None:
    """Return which images of a class are test images.

    Args:
        rule: the rule.
        wnid: the class.
        names: (n,) of its images.

    Returns:
        (n,) bool, with at least one image to train on; None: the rule leaves the class out.
    """
    mask = np.zeros(len(names), bool)
    chosen = RULES[rule.kind](rule.amount, wnid, names)
    if chosen is None:
        return None
    mask[list(chosen)] = True
    return mask


def count_notice(rule: SplitRule, label_space: str | None, train: int, test: int) -> str:
    """Return a sentence if a rule gives other numbers of images than were published.

    Args:
        rule: the rule.
        label_space: of the dataset, if it is known.
        train: images to train on.
        test: images to test on.
    """
    published = _published(rule, label_space)
    if not published:
        return ""
    whole = len(published) == 1
    found = (train + test,) if whole else (train, test)
    kind = "images" if whole else "images to train and to test on"
    if all(abs(a - b) <= TOLERANCE * b for a, b in zip(found, published, strict=True)):
        return ""
    return (
        f"data.split = {rule.kind}: the dataset has {_numbers(found)} {kind}, published are "
        f"{_numbers(published)} for {label_space}. Check that it is complete."
    )


def _published(rule: SplitRule, label_space: str | None) -> tuple[int, ...]:
    """Return published numbers of images: all of ImageNet-21K, or both splits of 21K-P."""
    if rule.kind == "imagenet21k" and label_space == "imagenet-21k":
        return (FALL11_IMAGES,)
    if rule.kind == "imagenet21k_p" and label_space is not None:
        return SPACES[label_space].images or ()
    return ()


def _numbers(counts: Sequence[int]) -> str:
    return " and ".join(f"{count:,}" for count in counts)


def _by_name(names: Sequence[str]) -> list[int]:
    return sorted(range(len(names)), key=lambda place: names[place].encode(errors="replace"))


def _hashes(wnid: str, names: Sequence[str]) -> list[float]:
    """Return (n,) numbers from 0 to 1, which depend on class and name alone."""
    digests = (hashlib.sha256(f"{wnid}/{name}".encode(errors="replace")).digest() for name in names)
    return [int.from_bytes(digest[:8], "big") / 2**64 for digest in digests]


def _fraction(amount: float, wnid: str, names: Sequence[str]) -> list[int]:
    """Return the images whose hash is below the fraction; at least one, if there are two."""
    hashes = _hashes(wnid, names)
    order = sorted(range(len(names)), key=lambda place: (hashes[place], names[place]))
    count = sum(value < amount for value in hashes)
    return order[: min(max(count, 1), len(names) - 1)] if names else []


def _first(amount: float, wnid: str, names: Sequence[str]) -> list[int]:
    """Return the first images by name, at most half of the class."""
    return _by_name(names)[: min(int(amount), len(names) // 2)]


def _per_class(amount: float, wnid: str, names: Sequence[str]) -> list[int]:
    """Return the images with the smallest hashes, at most half of the class."""
    hashes = _hashes(wnid, names)
    order = sorted(range(len(names)), key=lambda place: (hashes[place], names[place]))
    return order[: min(int(amount), len(names) // 2)]


def _imagenet21k(amount: float, wnid: str, names: Sequence[str]) -> list[int]:
    """Return the first 50 images by name, at most a tenth of the class.

    Source: none. No split of the 21,841 classes was published; this one is ImageNet-21K-P's for
    the classes that it has, and keeps small classes for training.
    """
    return _by_name(names)[: min(VALIDATION, len(names) // SHARE)]


def _imagenet21k_p(amount: float, wnid: str, names: Sequence[str]) -> list[int] | None:
    """Return the first 50 images by name of a class with more than 500.

    Source: arXiv:2104.10972 and its published preprocessing.
    """
    return _by_name(names)[:VALIDATION] if len(names) > LEAST else None


Choice = Callable[[float, str, Sequence[str]], list[int] | None]
RULES: Mapping[str, Choice] = {
    "fraction": _fraction,
    "first": _first,
    "per_class": _per_class,
    "imagenet21k": _imagenet21k,
    "imagenet21k_p": _imagenet21k_p,
}
