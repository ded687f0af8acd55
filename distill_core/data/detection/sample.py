"""A sample of the training images of a dataset, the same one as long as the dataset is the same.

It is spread over the parts of the split, and within a part where its images can be chosen without
reading all of them. Large images are fewer, so that a sample takes seconds.

Axes: n images, S side.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, islice
from statistics import median_low

import numpy as np
from PIL import Image

from distill_core.config.data import DataConfig
from distill_core.config.fields import Triple
from distill_core.config.recommended.facts import Pixels, Shapes
from distill_core.data.decoding.image import FORMATS, decode_image
from distill_core.data.readers.record import FileReader, Part, Reader, Record
from distill_core.data.readers.tar_members import BLOCK
from distill_core.errors import DataError

IMAGES = 256  # in a sample, at most
FEWEST = 16  # distance of the images of a sample that are decoded first
PARTS = 16  # of the split that a sample is taken from
BYTES = 2**27  # of encoded images in a sample; also of a part that is read to choose from it
DECODED = 400_000_000  # pixels, before they are resized
DIGITS = 3  # of mean and standard deviation
LEAST_STD = 0.05  # of images that are all alike


@dataclass(frozen=True)
class Sample:
    """Encoded images of the training split, some of which may be damaged, and their number."""

    images: tuple[bytes, ...]
    total: int  # images of the split
    counted: bool  # False: `total` is estimated from the bytes of archives


def take_sample(reader: Reader, classes: Sequence[str], *, images: int = IMAGES) -> Sample:
    """Return a sample of the training split of a dataset.

    Args:
        reader: of the dataset.
        classes: of the training split.
        images: in the sample, at most.
    """
    parts = [part for part in reader.parts("train") if part.count != 0]
    chosen = [parts[place] for place in _spread(len(parts), PARTS)]
    some_of_all: list[bytes] = []
    estimate = 0.0
    for number, part in enumerate(chosen):
        wanted = -(-(images - len(some_of_all)) // (len(chosen) - number))
        some = list(_of_part(reader, part, classes, wanted))
        some_of_all += some
        estimate += _estimated(part, some, wanted)
    if counted := all(part.count >= 0 for part in parts):
        total = sum(part.count for part in parts)
    else:
        share = sum(part.bytes for part in chosen) / sum(part.bytes for part in parts)
        total = round(estimate / share)
    return Sample(tuple(data for data in some_of_all if data), total, counted)


def shapes_of(images: Sequence[bytes]) -> Shapes | None:
    """Return the median sides of some images, from their headers; None: none can be opened."""
    sizes = []
    for data in images:
        with suppress(Exception), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            sizes.append(image.size)
    if not sizes:
        return None
    return Shapes(median_low(map(min, sizes)), median_low(map(max, sizes)))


def pixels_of(images: Sequence[bytes], config: DataConfig) -> Pixels | None:
    """Return mean and standard deviation of some images; None: none can be decoded.

    Args:
        images: encoded; damaged ones are left out, and those beyond `DECODED` pixels.
        config: the square that they become.
    """
    sums, squares, count = np.zeros(3), np.zeros(3), 0
    for data in _decodable(images):
        with suppress(DataError):
            pixels = decode_image(data, config) / 255.0  # (3, S, S)
            sums += pixels.mean(axis=(1, 2))
            squares += (pixels**2).mean(axis=(1, 2))
            count += 1
    if not count:
        return None
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, LEAST_STD**2))
    return Pixels(count, _triple(mean), _triple(std))


def count_classes(reader: Reader, classes: Sequence[str]) -> Counter[str] | None:
    """Return the number of images of each class; None: it is not known without reading them."""
    if not isinstance(reader, FileReader):
        return None
    counts = Counter(dict.fromkeys(classes, 0))
    for part in reader.parts("train"):
        listed = reader.listed(part, classes)
        if listed is None:
            return None
        counts.update(each.wnid for each in listed)
    return counts


def _of_part(reader: Reader, part: Part, classes: Sequence[str], wanted: int) -> Iterator[bytes]:
    """Yield some images of a part."""
    listed = reader.listed(part, classes) if isinstance(reader, FileReader) else None
    if listed is not None and isinstance(reader, FileReader):
        some = [listed[place] for place in _spread(len(listed), wanted)]
        sizes = accumulate(max(each.file.size, 0) for each in some)
        records: Iterable[Record] = reader.load(
            [each for each, size in zip(some, sizes, strict=True) if size <= BYTES // PARTS]
            or some[:1]
        ).records
    elif part.count > 0 and part.bytes <= BYTES:
        places = set(_spread(part.count, wanted))
        every = enumerate(reader.records(part, classes))
        records = (record for place, record in every if place in places)
    else:
        records = islice(reader.records(part, classes), wanted)
    for record in records:
        yield record.data


def _estimated(part: Part, images: Sequence[bytes], wanted: int) -> float:
    """Return the number of images of an archive, of which some were read from its beginning."""
    if len(images) < wanted:
        return len(images)
    blocks = sum(1 + -(-len(data) // BLOCK) for data in images)  # a member has a header
    return max(len(images), part.bytes / (BLOCK * blocks / len(images)))


def _spread(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` of `count` places, at equal distances."""
    if count <= wanted:
        return list(range(count))
    return [place * count // wanted for place in range(wanted)]


def _decodable(images: Sequence[bytes]) -> Iterator[bytes]:
    """Yield images whose headers can be read, up to a number of pixels; each class has some."""
    total, order = 0, [*images[::FEWEST], *(i for n, i in enumerate(images) if n % FEWEST)]
    for data in order:
        with suppress(Exception), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            total += image.width * image.height
            if total > DECODED:
                return
            yield data


def _triple(values: np.ndarray) -> Triple:
    red, green, blue = (round(float(value), DIGITS) for value in values)
    return red, green, blue
