"""Comparison of the weights of two networks."""

from __future__ import annotations

import torch


def same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Return whether two networks have the same weights, bit for bit."""
    return all(torch.equal(one[name], other[name]) for name in one)
