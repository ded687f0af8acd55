"""Sizes of images, networks and trainings that suit a dataset and a machine. Pure.

On a CPU the whole run of 10 classes with 500 images each at 32 px takes some minutes; larger
datasets get fewer epochs, so that the time of a training grows slowly. On a GPU the trainings have
the length of published recipes.

Axes: S side of images in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from types import MappingProxyType
from typing import Any

from distill_core.config.recommended.facts import Device, Facts, Machine, Shapes
from distill_core.errors import ConfigError

SIDES = (16, 32, 64, 128, 224)
MAX_SIDE = 4096  # of `distill_core.config.fields.Pixels`
LARGEST_SIDE: Mapping[Device, int] = MappingProxyType({"cpu": 64, "cuda": 224})
SMALL_NETWORKS = 64  # largest S of the networks that end in _small
ENLARGED = 1.5  # images may be enlarged by this factor before a smaller S is chosen
LONG = 1.2  # ratio of the sides from which a square is cut from an image
CROP = 8 / 7  # short side before the crop, relative to S: 256 for 224 as usual

LARGEST_IPC: Mapping[Device, int] = MappingProxyType({"cpu": 10, "cuda": 50})
SHARE = 10  # distilled images are at most this part of the real ones of a class
PART = 4  # of the memory may be used for the distilled images, which a node holds once
CLASS_STATISTICS = 1000  # largest number of classes whose statistics by class were published

# Images that a training sees in all epochs together, for S = 32 and one network.
TEACHER_IMAGES: Mapping[Device, int] = MappingProxyType({"cpu": 75_000, "cuda": 20_000_000})
TEACHER_EPOCHS: Mapping[Device, tuple[int, int]] = MappingProxyType(
    {"cpu": (4, 60), "cuda": (40, 200)}
)
STUDENT_IMAGES = 25_000  # of ten classes, on a CPU; more with more images
STUDENT_EPOCHS = (30, 500)


@dataclass(frozen=True)
class View:
    """How a real image becomes a square."""

    side: int
    resize: int | None  # short side before the crop; None: the image is squished


@dataclass(frozen=True)
class Training:
    """Length of a training."""

    epochs: int
    batch_size: int


def choose_view(shapes: Shapes, classes: int, machine: Machine, given: Mapping[str, Any]) -> View:
    """Return the side of images: the largest usual one that does not enlarge most of them much.

    Args:
        shapes: of a sample.
        classes: number of classes, an image of each of which has to fit in the memory.
        machine: that runs it.
        given: settings of the user by dotted key, of which the side is obeyed.
    """
    largest = min(LARGEST_SIDE[machine.device], ENLARGED * shapes.short_side)
    fitting = [s for s in SIDES if s <= largest and largest_ipc(classes, s, machine.memory)]
    side = given.get("data.side")
    if not isinstance(side, int) or not 0 < side <= MAX_SIDE:  # the config refuses a wrong one
        side = max(fitting, default=SIDES[0])
    is_long = shapes.long_side > LONG * shapes.short_side
    return View(side, round(CROP * side) if is_long else None)


def choose_ipc(facts: Facts, side: int, machine: Machine) -> int:
    """Return the number of distilled images per class.

    Raises:
        ConfigError: not even one per class fits in the memory.
    """
    wanted = min(LARGEST_IPC[machine.device], max(1, facts.per_class // SHARE))
    fitting = largest_ipc(len(facts.classes), side, machine.memory)
    if fitting < 1:
        raise ConfigError(
            f"{len(facts.classes):,} classes at {side} px: one image per class does not fit in "
            f"the memory of {machine.memory:,} bytes. Set a smaller data.side, or use a machine "
            "with more memory."
        )
    return min(wanted, fitting)


def largest_ipc(classes: int, side: int, memory: int) -> int:
    """Return the most images per class that use a part of the memory in post-training."""
    return memory // (PART * classes * 3 * side**2)


def choose_network(side: int, device: Device) -> dict[str, Any]:
    """Return the network of teacher and student, as the config names it."""
    if side > SMALL_NETWORKS:
        return {"name": "resnet18"}
    if device == "cpu":
        return {"name": "resnet18_small", "width": 16}
    return {"name": "resnet18_small"}


def choose_teacher_training(facts: Facts, side: int, device: Device) -> Training:
    """Return the training of the teacher: a number of images that falls slowly with the side."""
    images = facts.train_images
    least, most = TEACHER_EPOCHS[device]
    epochs = round(TEACHER_IMAGES[device] * _slower(side) / images)
    return Training(min(max(epochs, least), most), choose_batch(images, device))


def choose_batch(images: int, device: Device) -> int:
    """Return the batch size of a training with some images: at least ten steps an epoch."""
    sizes = (16, 32, 64) if device == "cpu" else (16, 32, 64, 128, 256)
    return max((size for size in sizes if 10 * size <= images), default=sizes[0])


def choose_student_training(classes: int, ipc: int, side: int, device: Device) -> Training:
    """Return the training of the student: more images for more classes, by their square root."""
    images = classes * ipc
    batch = max(size for size in (10, 25, 50, 100) if size == 10 or 2 * size <= images)
    if device == "cuda":
        return Training(300 if images > 5_000 else 1000, batch)
    seen = STUDENT_IMAGES * _slower(side) * max(1.0, sqrt(classes / 10))
    least, most = STUDENT_EPOCHS
    return Training(min(max(round(seen / images), least), most), batch)


def _slower(side: int) -> float:
    """Return the factor by which a training is shortened, because larger images take longer."""
    return min(1.0, 32 / side)
