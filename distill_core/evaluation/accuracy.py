"""Accuracy as counts that add up over blocks of images, and as percentages of them.

No torch here: reports add up the counts of workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Percentage of images whose class is the first, or among the first five."""

    top1: float
    top5: float

    def to_dict(self) -> dict[str, float]:
        """Return a JSON-able tree."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Hits:
    """Numbers of images: all evaluated ones, and those that are right at top-1 and at top-5."""

    images: int = 0
    top1: int = 0
    top5: int = 0

    def __add__(self, other: Hits) -> Hits:
        return Hits(self.images + other.images, self.top1 + other.top1, self.top5 + other.top5)

    @property
    def accuracy(self) -> Accuracy:
        """Return the percentages, to four decimals; zero if there is no image."""
        top1, top5 = (100 * hits / max(self.images, 1) for hits in (self.top1, self.top5))
        return Accuracy(round(top1, 4), round(top5, 4))


ClassHits = Mapping[int, Hits]  # by class id; only classes with images


def total(counted: ClassHits) -> Hits:
    """Return the hits over all classes."""
    return sum(counted.values(), Hits())


@dataclass
class AccuracyHistory:
    """Accuracies of a training so far; `best` is chosen on the test split itself."""

    curve: list[dict[str, float]] = field(default_factory=list)
    last: Accuracy = Accuracy(0.0, 0.0)
    ema: Accuracy = Accuracy(0.0, 0.0)
    best: Accuracy = Accuracy(0.0, 0.0)
    best_epoch: int = 0

    def add(self, epoch: int, loss: float, *, raw: Accuracy, ema: Accuracy) -> None:
        """Add the accuracy of the raw and of the averaged weights after so many epochs."""
        point = {"epoch": epoch, "loss": loss, "top1": raw.top1, "ema_top1": ema.top1}
        self.curve.append(point)
        self.last, self.ema = raw, ema
        if raw.top1 > self.best.top1:
            self.best, self.best_epoch = raw, epoch

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able tree."""
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> AccuracyHistory:
        """Read back what `to_dict` wrote."""
        accuracies = {name: Accuracy(**tree[name]) for name in ("last", "ema", "best")}
        return cls(curve=list(tree["curve"]), best_epoch=tree["best_epoch"], **accuracies)
