"""The settings of a recommended config, each with the reason for its value. Pure.

A shipped preset supplies the method; the settings here are laid over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from distill_core.config.recommended import sizes
from distill_core.config.recommended.facts import Facts, Machine, Pixels
from distill_core.config.recommended.sizes import Training, View

BEST, BEST_AT_224, WITHOUT_STATISTICS = "edc-crops-cifar10", "edc-in1k", "rded-tiny"
WITHOUT_STATISTICS_AT_224 = "rded-in1k"
BAD_FRACTION = 0.01  # of the images may be unreadable
NOT_PUBLISHED = "not published; the baseline of random real images is part of the run"


@dataclass(frozen=True)
class Setting:
    """One value of the config."""

    key: str  # dotted
    value: Any
    why: str  # one line


@dataclass(frozen=True)
class Choice:
    """The sizes that were chosen for a dataset."""

    facts: Facts
    machine: Machine
    view: View
    ipc: int
    teacher: Training
    student: Training

    @property
    def method(self) -> str:
        """Return the preset that supplies the method."""
        is_small = self.view.side <= sizes.SMALL_NETWORKS
        if len(self.facts.classes) > sizes.CLASS_STATISTICS:
            return WITHOUT_STATISTICS if is_small else WITHOUT_STATISTICS_AT_224
        return BEST if is_small else BEST_AT_224

    @property
    def network(self) -> dict[str, Any]:
        """Return the network of teacher and student."""
        return sizes.choose_network(self.view.side, self.machine.device)


def choose(facts: Facts, machine: Machine) -> Choice:
    """Return the sizes that suit a dataset and a machine.

    Raises:
        ConfigError: the images of one per class do not fit in the memory.
    """
    device, classes = machine.device, len(facts.classes)
    view = sizes.choose_view(facts.shapes, classes, machine, facts.given)
    ipc = facts.given.get("ipc")
    if not isinstance(ipc, int) or ipc < 1:  # if it is given, it is refused with the config
        ipc = sizes.choose_ipc(facts, view.side, machine)
    return Choice(
        facts,
        machine,
        view,
        ipc,
        sizes.choose_teacher_training(facts, view.side, device),
        sizes.choose_student_training(classes, ipc, view.side, device),
    )


def settings(choice: Choice, pixels: Pixels) -> list[Setting]:
    """Return all settings of a recommended config, in the order of the config.

    Args:
        choice: the sizes.
        pixels: mean and standard deviation of a sample at `choice.view`.
    """
    return [
        *_run(choice),
        *_data(choice, pixels),
        *_squeeze(choice),
        *_images_and_labels(choice),
        *_posttrain(choice),
    ]


def with_given(chosen: list[Setting], given: Mapping[str, Any]) -> list[Setting]:
    """Return settings with those of the user in place of the chosen ones.

    Args:
        chosen: the settings.
        given: values by dotted key.
    """
    for key, value in given.items():
        chosen = _with_given(chosen, key, value)
    return chosen


def _run(choice: Choice) -> Iterator[Setting]:
    facts, method = choice.facts, choice.method
    if method in (BEST, BEST_AT_224):
        why = "EDC from scored crops: ahead of random real images in docs/results.md"
    else:
        why = "RDED: scored crops alone, as statistics by class grow with the number of classes"
    yield Setting("extends", method, why)
    yield Setting("source", f"{method}, with sizes for this dataset", "not from a paper")
    yield Setting("expected", NOT_PUBLISHED, "compare with random real images instead")
    yield Setting("differs", "dataset, networks and sizes of every stage", "from the preset")
    share = f"a tenth of about {facts.per_class:,} real ones"
    most = sizes.LARGEST_IPC[choice.machine.device]
    yield Setting("ipc", choice.ipc, f"images per class: {share}, at least 1 and at most {most}")


def _data(choice: Choice, pixels: Pixels) -> Iterator[Setting]:
    facts, view, shapes = choice.facts, choice.view, choice.facts.shapes
    yield Setting("data.name", facts.name, "in reports and records")
    for key, value in facts.data.items():
        yield Setting(f"data.{key}", value, _REASONS.get(key, "as it was found"))
    yield Setting(
        "data.num_classes", len(facts.classes), "counted; 0 counts again whenever a run starts"
    )
    median = f"median of the sample: {shapes.short_side} x {shapes.long_side} px"
    limit = sizes.LARGEST_SIDE[choice.machine.device]
    slow = "; 128 and 224 take long on a CPU" if choice.machine.device == "cpu" else ""
    capped = slow if view.side == limit and shapes.short_side > limit else ""
    yield Setting("data.side", view.side, f"px; {median}{capped}")
    if view.resize is None:
        yield Setting("data.load", "squish", "images are about square")
    else:
        yield Setting("data.load", "center_crop", "images are longer than wide, or wider than long")
    yield Setting("data.resize", view.resize, "px; short side before the crop, none if squished")
    yield Setting("data.mean", list(pixels.mean), f"of {pixels.images:,} images, by channel")
    yield Setting("data.std", list(pixels.std), f"of {pixels.images:,} images, by channel")
    yield Setting(
        "data.max_bad_fraction", BAD_FRACTION, "few damaged images are left out, more refused"
    )


_REASONS: Mapping[str, str] = {
    "path": "the dataset, which is read where it is",
    "format": "found by its names",
    "train": "the images to train on, below the path",
    "test": "the images to test on, below the path",
    "split": "there is no test split, so this share of each class is one; by name, not by chance",
}


def _squeeze(choice: Choice) -> Iterator[Setting]:
    side, training = choice.view.side, choice.teacher
    is_small, is_cpu = side <= sizes.SMALL_NETWORKS, choice.machine.device == "cpu"
    size = "16 channels, for a CPU" if is_cpu else f"a usual network for {side} px"
    yield Setting("squeeze.model", choice.network, f"teacher: {size}")
    yield Setting("squeeze.pool", [], "one teacher; the method accepts several")
    epochs = f"{training.epochs * choice.facts.train_images:,} images seen in all"
    yield Setting("squeeze.training.epochs", training.epochs, epochs)
    yield Setting(
        "squeeze.training.batch_size",
        training.batch_size,
        "ten steps an epoch or more",
    )
    rate = round(0.1 * min(1.0, training.batch_size / 64), 4)
    decay = 0.0005 if is_small else 0.0001
    optimizer = {"name": "sgd", "lr": rate, "momentum": 0.9, "weight_decay": decay}
    yield Setting("squeeze.training.optimizer", optimizer, "a smaller rate for batches below 64")
    schedule = {"warmup_epochs": 1, "per_step": True, "milestones": []}
    yield Setting("squeeze.training.schedule", schedule, "an epoch of warm-up, then half a cosine")
    yield Setting("squeeze.training.nesterov", True, "as in the recipe of docs/results.md")
    if is_small:
        augment: dict[str, Any] = {"pad_crop": side // 8, "crop": None, "flip": True}
        why = "shifts by an eighth; set flip to false if left and right differ, as in text"
    else:
        augment = {"pad_crop": 0, "crop": [0.08, 1.0], "flip": True}
        why = "random crops; set flip to false if left and right differ, as in text"
    yield Setting("squeeze.training.augment", augment, why)


def _images_and_labels(choice: Choice) -> Iterator[Setting]:
    yield Setting("recover.teachers", [0], "the teacher above")
    yield Setting("recover.ipc_range", min(choice.ipc, 10), "images of a class in one shard")
    yield Setting("relabel.teachers", [0], "the teacher above")
    yield Setting("relabel.scheme", "online", "labels are computed when used, none are stored")
    yield Setting("relabel.views", choice.student.epochs, "one for each epoch of the student")
    if choice.machine.device == "cpu":
        yield Setting("relabel.rand_augment", None, "crops and CutMix alone, which are faster")
    crop = [0.08, 1.0] if choice.view.side <= sizes.SMALL_NETWORKS else [0.25, 1.0]
    yield Setting("relabel.crop", crop, "share of an image that a view shows")


def _posttrain(choice: Choice) -> Iterator[Setting]:
    training, images = choice.student, choice.ipc * len(choice.facts.classes)
    yield Setting("posttrain.students", [choice.network], "student: a new network like the teacher")
    yield Setting("posttrain.seeds", [0], "one student of each kind; [0, 1, 2] shows the spread")
    sets = ["distilled", "random_real"]
    yield Setting("posttrain.sets", sets, "a student of random real images is the baseline")
    yield Setting(
        "posttrain.epochs", training.epochs, f"{training.epochs * images:,} views seen in all"
    )
    yield Setting(
        "posttrain.batch_size",
        training.batch_size,
        "two steps an epoch or more",
    )
    optimizer = {"name": "adamw", "lr": 0.003, "weight_decay": 0.01}
    yield Setting("posttrain.optimizer", optimizer, "as measured in docs/results.md")
    yield Setting("posttrain.schedule", {"zeta": 1.0, "milestones": []}, "half a cosine")
    yield Setting("posttrain.loss", "kl", "as measured in docs/results.md")
    yield Setting("posttrain.hard_weight", 0.0, "soft labels alone")
    every = max(1, training.epochs // 5)
    yield Setting("posttrain.evaluate_every", every, "epochs; five measurements in all")


def _with_given(chosen: list[Setting], key: str, value: Any) -> list[Setting]:
    """Return settings with one of the user, which may be a part of one or hold several."""
    why = "set by you"
    for place, setting in enumerate(chosen):
        if setting.key == key:
            return [*chosen[:place], Setting(key, value, why), *chosen[place + 1 :]]
        if key.startswith(f"{setting.key}.") and isinstance(setting.value, dict):
            merged = _merged(setting.value, key.removeprefix(f"{setting.key}.").split("."), value)
            return [*chosen[:place], Setting(setting.key, merged, why), *chosen[place + 1 :]]
    others = [setting for setting in chosen if not setting.key.startswith(f"{key}.")]
    return [*others, Setting(key, value, why)]


def _merged(tree: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """Return a tree with a value at a path."""
    first, *rest = path
    if not rest:
        return {**tree, first: value}
    below = tree.get(first)
    return {**tree, first: _merged(below if isinstance(below, dict) else {}, rest, value)}
