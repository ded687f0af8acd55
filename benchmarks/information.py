"""How much of soft labels is lost on the way to a student."""

from __future__ import annotations

import numpy as np


def share_lost(exact: np.ndarray, coded: np.ndarray, temperature: float) -> float:
    """Return KL(p || q) as a share of the label's information, KL(p || uniform)."""
    p, q = _log_softmax(exact, temperature), _log_softmax(coded, temperature)
    lost = (np.exp(p) * (p - q)).sum(-1).mean()
    held = (np.exp(p) * (p + np.log(exact.shape[-1]))).sum(-1).mean()
    return float(lost / held)


def _log_softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Return log probabilities in float64."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(-1, keepdims=True)
    return np.asarray(scaled - np.log(np.exp(scaled).sum(-1, keepdims=True)))
