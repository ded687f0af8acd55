"""Generator of tiny synthetic images of any number of classes, without a download.

A class is a 4 x 4 grid of colours; each of its images is that grid, shifted in brightness, with
noise, at 8 x 8. They serve to rehearse a run with its real number of classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from distill_core.config.data import DataConfig
from distill_core.data.readers.parts import PART_RECORDS, ranges
from distill_core.data.readers.record import Address, Part, Record, Split
from distill_core.seeds import derive_seed

SIDE = 8
GRID = 4
COUNTS = {"train": 3, "test": 1}  # images per class
BRIGHTNESS = 10.0  # standard deviation, of pixels in 0..255
NOISE = 16.0  # likewise
HEADER = f"P6 {SIDE} {SIDE} 255\n".encode()  # binary PPM: nothing to compress
SIZE = len(HEADER) + 3 * SIDE * SIDE  # of a file, in bytes


class PatternsReader:
    """Makes the images; address (``train/<class>``, number within the class)."""

    def __init__(self, config: DataConfig) -> None:
        self._count = config.num_classes

    def classes(self, split: Split = "train") -> tuple[str, ...]:
        """Return pattern_00000 and so on."""
        return tuple(f"pattern_{number:05d}" for number in range(self._count))

    def parts(self, split: Split) -> Sequence[Part]:
        """Return blocks of classes."""
        return [
            Part(
                split,
                f"{split}-{number:05d}",
                first=first,
                last=last,
                count=last - first,
                bytes=(last - first) * SIZE,
            )
            for number, (first, last) in enumerate(
                ranges(self._count * COUNTS[split], PART_RECORDS // COUNTS[split] * COUNTS[split])
            )
        ]

    def notices(self, split: Split) -> list[str]:
        """Return nothing: every record counts."""
        return []

    def records(self, part: Part, classes: Sequence[str]) -> Iterator[Record]:
        """Yield every image of a block of classes as a PPM file."""
        for record in range(part.first, part.last):
            label, number = divmod(record, COUNTS[part.split])
            data = pattern(part.split, classes[label], number)
            uri = f"{part.split}/{classes[label]}"
            yield Record(label, uri, number, f"{number}.ppm", data)

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Return images by class and number."""
        files = []
        for uri, number, _ in addresses:
            split, _, name = uri.partition("/")
            files.append(pattern("train" if split == "train" else "test", name, number))
        return files


def pattern(split: Split, name: str, number: int) -> bytes:
    """Return one image of a class as a PPM file of 8 x 8 pixels."""
    grid = _draws("class", name).integers(0, 256, (GRID, GRID, 3))
    rng = _draws(split, name, number)
    pixels = grid.repeat(SIDE // GRID, axis=0).repeat(SIDE // GRID, axis=1)
    noisy = pixels + rng.normal(0, BRIGHTNESS) + rng.normal(0, NOISE, (SIDE, SIDE, 3))
    return HEADER + noisy.round().clip(0, 255).astype(np.uint8).tobytes()


def _draws(*names: str | int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(derive_seed(0, "patterns", *names)))
