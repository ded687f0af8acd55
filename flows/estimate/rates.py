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
    "pack": "pack",
}
# Passes through a network, of which an image-iteration has two: forward, and back to the pixels.
PASSES: Mapping[Unit, int] = {"training": 3, "forward": 1, "view": 1}
SMALL = 64  # pixels; the images of a dataset of at most this side are small files
# Images of one core per second. Source: benchmarks/results/ingest_cpu_2026-11-30.md, one core of a
# Xeon, 64 pixels; /500 x 375 photographs of 79 kB with Pillow, 3.9 ms each.
ASSUMED: Mapping[Unit, tuple[float, float]] = {  # small, large
    "decode": (6500.0, 256.0),
    "check": (5900.0, 800.0),
    "pack": (3800.0, 150.0),
}
# Relative to decoding the source, for photographs of 500 x 375 and packs with a short side of 256
# pixels; measured with 100 of ImageNet-1K: 2.5 ms to decode one, 4.2 to pack it, 0.8 from a pack.
FROM_PACKS = 3.0
COPIED = 4.6  # packing without decoding, 0.54 ms


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
    needed = ON_CPU if config.data.pack is not None else ON_CPU - {"pack"}
    for unit in (unit for unit in MEASURED_AS if unit in needed):
        rates.setdefault(unit, Rate(_assumed(config, unit), "assumed"))
    return rates


def _assumed(config: RunConfig, unit: Unit) -> float:
    """Return the images of one core per second for which nothing was measured."""
    (small, large), pack = ASSUMED[unit], config.data.pack
    if config.data.side <= SMALL:
        return small
    if pack is not None and pack.encoding == "original":
        return COPIED * ASSUMED["decode"][1] if unit == "pack" else large
    return FROM_PACKS * large if pack is not None and unit == "decode" else large
