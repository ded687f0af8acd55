"""Loss terms of recover; a method is a choice of terms and weights, a new idea is one function.

statistics, features, pixels, prediction: the terms, by the input they compare
forward: the input of a term
distances: Euclidean distances of many vectors at once
"""

from __future__ import annotations

from collections.abc import Mapping

from distill_core.config.terms import TermName
from distill_core.errors import ConfigError
from distill_core.recover.terms.features import feature_barycentre, feature_originals
from distill_core.recover.terms.forward import Forward, Layers, Term
from distill_core.recover.terms.pixels import density, start_distance
from distill_core.recover.terms.prediction import adversarial, cross_entropy, flatness
from distill_core.recover.terms.statistics import (
    bn_statistics,
    class_bn_statistics,
    class_conv_statistics,
    class_patch_statistics,
    conv_statistics,
    patch_statistics,
    relative_bn_statistics,
)

__all__ = [
    "TERMS",
    "Forward",
    "Layers",
    "Objective",
    "Term",
    "bn_statistics",
    "build_objective",
    "cross_entropy",
]

Objective = Mapping[str, tuple[float, Term]]

# In the order in which an objective adds them up: a sum of floats depends on it, and no key
# contains the order in a config. It is the order of all presets.
TERMS: Mapping[str, Term] = {
    t.__name__: t
    for t in (
        feature_barycentre,
        cross_entropy,
        bn_statistics,
        relative_bn_statistics,
        class_bn_statistics,
        conv_statistics,
        class_conv_statistics,
        patch_statistics,
        class_patch_statistics,
        feature_originals,
        start_distance,
        flatness,
        density,
        adversarial,
    )
}
NEEDS_SYNC = frozenset({"density"})  # terms that wait for the device in the middle of a step
NEEDS_CHANNELS = frozenset({"conv_statistics", "class_conv_statistics"})
NEEDS_PATCHES = frozenset({"patch_statistics", "class_patch_statistics"})


def build_objective(weights: Mapping[TermName, float] | Mapping[str, float]) -> Objective:
    """Return the terms with a positive weight, in the order of `TERMS` whatever that of `weights`.

    Raises:
        ConfigError: no such term.
    """
    if unknown := sorted(weights.keys() - TERMS.keys()):
        raise ConfigError(
            f"recover.terms: unknown term {unknown[0]!r}. Known terms: {', '.join(sorted(TERMS))}."
        )
    weight_of: dict[str, float] = dict(weights.items())
    return {n: (weight_of[n], term) for n, term in TERMS.items() if weight_of.get(n)}
