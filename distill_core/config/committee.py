"""Several teachers used at once: their weights, and the choice of those that vote."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat

from distill_core.config.fields import MAX_TEACHERS, Count, Frozen, NonNegativeFloat


class WeightingConfig(Frozen):
    """Weights softmax(priors / temperature), in the order of the stage's teachers."""

    # Quality of each teacher, e.g. the accuracy in % of students of data distilled from it alone
    priors: tuple[NonNegativeFloat, ...] = Field(min_length=2, max_length=MAX_TEACHERS)
    temperature: PositiveFloat


class CommitteeConfig(Frozen):
    """Several teachers in every step of recover, instead of one per step in turn (CV-DD)."""

    voters: Count | None = None  # teachers per ipc_index, chosen for each; None: all
    choice: Literal["random", "cycle"] = "random"  # cycle: every combination in order
    weighting: WeightingConfig | None = None  # None: equal weights
