"""Features and logits with the statistics of an ImageNet network's."""

from __future__ import annotations

import numpy as np

from tests.support.label_definitions import dequantise, quantised

CLASSES, CHANNELS, LABELS = 1000, 512, 400


def clustered_head(rng: np.random.Generator) -> np.ndarray:
    """Return a head whose classes come in 40 families, as ImageNet's do, (C, D) float32."""
    families = rng.normal(size=(40, CHANNELS))
    own = rng.normal(size=(CLASSES, CHANNELS))
    return (families[rng.integers(40, size=CLASSES)] + 0.7 * own).astype(np.float32)


def sparse_features(rng: np.random.Generator, head: np.ndarray) -> np.ndarray:
    """Return ReLU features that lean towards one class each, (LABELS, D) float32."""
    towards = head[rng.integers(CLASSES, size=LABELS)]
    return np.maximum(rng.normal(-0.5, 1.0, (LABELS, CHANNELS)) + 0.5 * towards, 0).astype(
        np.float32
    )


def labels(codes_bits_lost: int = 0, *, bits: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return exact logits of standard deviation 2.3 and those that the codec gives back."""
    rng = np.random.default_rng(0)
    head = clustered_head(rng)
    features = sparse_features(rng, head)
    bias = rng.normal(size=CLASSES).astype(np.float32)
    head *= np.float32(2.3 / (features @ head.T).std())
    codes, affine = quantised(features, bits=bits)
    codes = codes >> codes_bits_lost << codes_bits_lost
    exact = features @ head.T + bias
    return exact, dequantise(codes, affine) @ head.T + bias
