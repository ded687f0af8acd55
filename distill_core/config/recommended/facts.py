"""The facts about a dataset and a machine on which a recommended config depends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from distill_core.config.fields import Triple

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Machine:
    """The machine that is to distil the dataset."""

    device: Device
    memory: int  # bytes that one process may use, of the host or of the GPU


@dataclass(frozen=True)
class Shapes:
    """The shapes of a sample of images, before they are decoded."""

    short_side: int  # median, in pixels
    long_side: int  # median, in pixels


@dataclass(frozen=True)
class Pixels:
    """The pixels of a sample of images, at the side of the config and in [0, 1]."""

    images: int  # in the sample
    mean: Triple  # per channel
    std: Triple  # likewise, positive


@dataclass(frozen=True)
class Facts:
    """A dataset as it was found."""

    name: str  # as `data.name` allows it
    data: Mapping[str, Any]  # keys of `data` that say where the dataset is and how it is read
    classes: tuple[str, ...]
    images: int  # in the training split; if a rule divides it, in both splits
    shapes: Shapes
    counted: bool = True  # False: `images` is estimated from the bytes of the archives
    smallest: int | None = None  # images of the smallest class; None: not counted
    given: Mapping[str, Any] = field(default_factory=dict)  # settings of the user, by dotted key

    @property
    def rule(self) -> str | None:
        """Return the rule that divides the training split; None: there is a test split."""
        text = self.data.get("split")
        return None if text is None else str(text)

    @property
    def train_images(self) -> int:
        """Return the number of images to train on, at least one per class."""
        share = 1.0
        if self.rule is not None and self.rule.startswith("fraction:"):
            share -= float(self.rule.removeprefix("fraction:"))
        return max(len(self.classes), round(share * self.images))

    @property
    def per_class(self) -> int:
        """Return the number of images to train on in an average class."""
        return max(1, self.train_images // len(self.classes))
