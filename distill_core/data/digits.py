"""The handwritten digits inside scikit-learn: real images that need no download.

1,797 images of 8 x 8 (UCI ML hand-written digits), enlarged to 32 x 32 and three channels.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image

from distill_core.errors import ConfigError

DIGITS_CLASSES = tuple(f"digit_{number}" for number in range(10))
SIDE = 32
TEST_FRACTION = 0.2
SPLIT_SEED = 0


@lru_cache(maxsize=2)
def digits_split(split: Literal["train", "test"]) -> tuple[list[bytes], list[int]]:
    """Return PNG files and labels of a stratified split with a fixed seed (1,437 and 360 images).

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits  # only this format needs it
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise ConfigError(
            "data.format=digits: the images are inside scikit-learn, which is not installed. "
            "Install distill[digits]."
        ) from None
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        images, labels, test_size=TEST_FRACTION, random_state=SPLIT_SEED, stratify=labels
    )
    images, labels = (parts[0], parts[2]) if split == "train" else (parts[1], parts[3])
    return [_png(image) for image in images], [int(label) for label in labels]


def _png(image: np.ndarray) -> bytes:
    """Return an 8 x 8 image of 0..16 as a 32 x 32 RGB PNG."""
    grey = Image.fromarray((image.reshape(8, 8) * (255 / 16)).round().astype(np.uint8))
    large, stream = grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC), io.BytesIO()
    large.convert("RGB").save(stream, "PNG")
    return stream.getvalue()
