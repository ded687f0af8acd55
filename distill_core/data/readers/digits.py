"""Reader of the handwritten digits in scikit-learn, which need no download.

1,797 images of 8 x 8 (UCI ML hand-written digits), enlarged to 32 x 32 and three channels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec

import numpy as np
from PIL import Image

from distill_core.config.data import DataConfig
from distill_core.data.readers.record import Address, Part, Record, Split
from distill_core.errors import ConfigError

CLASSES = tuple(f"digit_{number}" for number in range(10))
SIDE = 32
TEST_FRACTION = 0.2
SPLIT_SEED = 0
NOT_INSTALLED = ConfigError(
    "data.format=digits: needs scikit-learn, which is not installed. Install distill[digits]."
)


class DigitsReader:
    """Reads the digits; address (``train`` or ``test``, number of the image in its split)."""

    def __init__(self, config: DataConfig) -> None: ...

    def classes(self, split: Split = "train") -> tuple[str, ...]:
        """Return digit_0 to digit_9.

        Raises:
            ConfigError: scikit-learn is not installed.
        """
        if find_spec("sklearn") is None:
            raise NOT_INSTALLED
        return CLASSES

    def parts(self, split: Split) -> Sequence[Part]:
        """Return one part, of 1,437 or 360 images."""
        files = digits_split(split)[0]
        size = sum(map(len, files))
        return (Part(split, f"{split}-00000", count=len(files), bytes=size),)

    def notices(self, split: Split) -> list[str]:
        """Return nothing: every record counts."""
        return []

    def records(self, part: Part, classes: Sequence[str]) -> Iterator[Record]:
        """Yield every image of a split as a PNG file."""
        split = part.split
        files, labels = digits_split(split)
        for row, (data, label) in enumerate(zip(files, labels, strict=True)):
            yield Record(label, split, row, f"{row:05d}.png", data)

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Return images by split and number."""
        return [digits_split("train" if s == "train" else "test")[0][n] for s, n, _ in addresses]


@lru_cache(maxsize=2)
def digits_split(split: Split) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    """Return PNG files and labels of a stratified split with a fixed seed.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits  # only this format needs it
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise NOT_INSTALLED from None
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        images, labels, test_size=TEST_FRACTION, random_state=SPLIT_SEED, stratify=labels
    )
    images, labels = (parts[0], parts[2]) if split == "train" else (parts[1], parts[3])
    return tuple(_png(image) for image in images), tuple(int(label) for label in labels)


def _png(image: np.ndarray) -> bytes:
    """Return an 8 x 8 image of 0..16 as a 32 x 32 RGB PNG."""
    grey = Image.fromarray((image.reshape(8, 8) * (255 / 16)).round().astype(np.uint8))
    large, stream = grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC), io.BytesIO()
    large.convert("RGB").save(stream, "PNG")
    return stream.getvalue()
