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
# Images of one core of a Xeon per second, of 64 pixels and of photographs of 500 x 375. Source:
# benchmarks/results, squeeze-data_cpu_2026-12-01.md and ingest_cpu_2026-12-01.md.
ASSUMED: Mapping[Unit, tuple[float, float]] = {"decode": (5900.0, 460.0), "check": (8800.0, 900.0)}
# Relative to decoding the source, for photographs of 500 x 375 and packs with a short side of 256
# pixels; measured with 100 of ImageNet-1K: 2.5 ms to decode one, 4.2 to pack it, 0.8 from a pack.
PACKED = 0.6
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
    large, pack = config.data.side > SMALL, config.data.pack
    if unit == "check":
        return ASSUMED["check"][large]
    decoded = ASSUMED["decode"][large]
    if pack is None:
        return decoded
    copied = pack.encoding == "original"
    if unit == "pack":
        return (COPIED if copied else PACKED) * decoded
    return FROM_PACKS * decoded if large and not copied else decoded
