"""The speed at which one core reads the real images of a dataset."""

from __future__ import annotations

import time

from distill_core.config.data import DataConfig
from distill_core.data.decoding.image import check_image, decode_image
from distill_core.data.detection.sample import take_sample
from distill_core.data.readers.formats import open_reader
from distill_core.errors import DistillError

IMAGES = 64  # that are read, at most


def reading_rates(data: DataConfig) -> dict[str, float]:
    """Return how many real images one core fetches and decodes, and checks, in a second.

    Waiting for storage counts, since a decoding process fetches what it decodes.

    Returns:
        Empty: the dataset has no images, or cannot be read from here.
    """
    try:
        reader = open_reader(data)
        since = time.perf_counter()
        images = take_sample(reader, reader.classes(), images=IMAGES).images
        fetched = time.perf_counter() - since
        if not images:
            return {}
        seconds = {}
        for name, read in (("decode", decode_image), ("check", check_image)):
            since = time.perf_counter()
            for image in images:
                read(image, data)
            seconds[name] = fetched + time.perf_counter() - since
    except DistillError:
        return {}
    return {name: len(images) / taken for name, taken in seconds.items()}
