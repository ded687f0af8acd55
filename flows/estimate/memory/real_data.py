"""Facts about the real images of a run that decide how much memory its stages need."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class RealData:
    """The real images of a run and how its processes read them."""

    train: int | None = None  # images; None: not known
    test: int | None = None
    largest_class: int | None = None  # training images of the largest class
    decoders: int = 1  # processes that decode for one worker
    resident: float = math.inf  # bytes up to which a training split stays in memory

    def of_a_class(self, classes: int) -> int | None:
        """Return the training images of the largest class, as far as they are known."""
        if self.largest_class is not None or self.train is None:
            return self.largest_class
        return -(-self.train // max(classes, 1))
