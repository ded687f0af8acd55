"""The text that names a split rule in a config."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SplitRule:
    """A rule with its amount; see `distill_core.data.splits.rules`."""

    kind: str
    amount: float = 0.0

    @property
    def drops_classes(self) -> bool:
        """Return whether it leaves classes out, so that they are known only by their images."""
        return self.kind == "imagenet21k_p"


def parse_rule(text: str) -> SplitRule:
    """Return the rule of a text such as ``first:50``, ``fraction:0.1`` or ``imagenet21k_p``.

    Raises:
        ValueError: there is no such rule, or its amount is out of range.
    """
    kind, _, amount = text.partition(":")
    if kind in ("imagenet21k", "imagenet21k_p") and not amount:
        return SplitRule(kind)
    if kind in ("first", "per_class") and amount.isdecimal() and 0 < int(amount[:9]) <= 1_000_000:
        return SplitRule(kind, int(amount))
    if kind == "fraction":
        try:
            value = float(amount)
        except ValueError:
            value = 0.0
        if 0 < value < 1:
            return SplitRule(kind, value)
    raise ValueError(
        "expected fraction:F with F between 0 and 1, first:N, per_class:N, imagenet21k or "
        "imagenet21k_p"
    )
