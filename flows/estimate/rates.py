"""Speeds from which hours follow, and where each is from.

Measured rates come from `tasks.calibration`. What was not measured is derived from the rate of
recover, by the passes of each unit, or assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from distill_core.config.schema import RunConfig
from flows.estimate.passes import ON_CPU, Unit

Source = Literal["measured", "given", "derived from recover", "assumed"]

MEASURED_AS: Mapping[Unit, str] = {  # name of each unit's rate in what calibration returns
    "iteration": "recover",
    "view": "relabel",
    "training": "train",
    "forward": "forward",
    "decode": "decode",
    "check": "check",
}
# Passes through a network, of which an image-iteration has two: forward, and back to the pixels.
PASSES: Mapping[Unit, int] = {"training": 3, "forward": 1, "view": 1}
SMALL = 64  # pixels; the images of a dataset of at most this side are small files
# Images of one core per second. Source: benchmarks/results/ingest_cpu_2026-11-30.md, one core of a
# Xeon, 64 pixels; /500 x 375 photographs of 79 kB with Pillow, 3.9 ms each.
ASSUMED: Mapping[Unit, tuple[float, float]] = {  # small, large
    "decode": (6500.0, 256.0),
    "check": (5900.0, 800.0),
}


@dataclass(frozen=True)
class Rate:
    """How many passes of a unit one GPU, or one CPU core for `ON_CPU`, makes in a second."""

    per_second: float
    source: Source


Rates = Mapping[Unit, Rate]


def rates_of(
    config: RunConfig, *, given: float | None = None, measured: Mapping[str, float] | None = None
) -> Rates:
    """Return the rate of every unit that is known, measured or follows from another.

    Args:
        config: of the run.
        given: image-iterations per second of one GPU, by hand.
        measured: what calibration returned.
    """
    rates: dict[Unit, Rate] = {}
    for unit, name in MEASURED_AS.items():
        if measured and measured.get(name):
            rates[unit] = Rate(measured[name], "measured")
    if given is not None and "iteration" not in rates:
        rates["iteration"] = Rate(given, "given")
    if recover := rates.get("iteration"):
        for unit, passes in PASSES.items():
            rates.setdefault(unit, Rate(2 * recover.per_second / passes, "derived from recover"))
    for unit in ON_CPU:
        small, large = ASSUMED[unit]
        rate = small if config.data.side <= SMALL else large
        rates.setdefault(unit, Rate(rate, "assumed"))
    return rates
