"""The distilled images of a run before networks that took no part in it: a table and a picture.

Where there are no real images to test a student on, networks trained on ImageNet-1K show whether
the images are what they should be. Their weights are files of installed packages.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from distill_core.data.index_files import open_index
from distill_core.evaluation.recognition import Recognition, recognise_published
from distill_core.label_spaces.lists import wordnet_words
from distill_core.sharding import ImageId
from distill_core.storage.image_shards import decode_images
from distill_core.storage.shard_store import ShardStore
from flows.reports.report_data import gather
from tasks.run import Run
from tasks.stages.inputs import dataset_of
from tasks.stages.names import StageId

PICTURE = "report/images.png"  # in the folder of a run
HEADER = ("network", "top-1", "top-5", "mean probability")
COLUMNS, SIDE, GAP, CAPTION = 5, 160, 8, 20  # of the picture; in pixels but the first
FONT_SIZE, LETTERS = 13, 22

Images = list[tuple[ImageId, np.ndarray]]  # pixels (3, S, S) uint8


def distilled_images(run: Run) -> Images:
    """Return the distilled images of a run whose recover stage is complete, by class."""
    shard_store = ShardStore(run.store, "recover")
    markers = gather(run).markers[StageId("recover")]
    shards = [decode_images(shard_store.load(marker, "parquet")) for marker in markers]
    pairs = [pair for s in shards for pair in zip(s.images, s.pixels, strict=True)]
    return sorted(pairs, key=lambda pair: (pair[0].label, pair[0].ipc_index))


def recognised(images: Images, num_classes: int) -> dict[str, Recognition]:
    """Return how well published networks recognise images of ImageNet-1K's classes.

    Raises:
        ConfigError: the package of a network is not installed.
    """
    pixels = np.stack([pixels for _, pixels in images])
    labels = np.array([image.label for image, _ in images])
    return recognise_published(pixels, labels, num_classes=num_classes)


def cells(found: Mapping[str, Recognition], *, teacher: str) -> list[tuple[str, ...]]:
    """Return the body of the table, see `HEADER`."""
    return [
        (
            f"{name} (teacher)" if name == teacher else name,
            f"{result.hits.top1} of {result.hits.images}",
            f"{result.hits.top5} of {result.hits.images}",
            f"{result.probability:.2f}",
        )
        for name, result in found.items()
    ]


def write_picture(run: Run, images: Images) -> str:
    """Write one picture of the first image of every class; return its path in the store."""
    known, words = open_index(run.store, dataset_of(run)).class_names, wordnet_words()
    first = [(image, pixels) for image, pixels in images if image.ipc_index == 0]
    captions = [words.get(name := known[image.label], name).split(",")[0] for image, _ in first]
    stream = io.BytesIO()
    drawn = draw([pixels for _, pixels in first], captions)
    drawn.save(stream, "PNG", optimize=True)
    path = run.path(PICTURE)
    run.store.put(path, stream.getvalue())
    return path


def draw(pixels: Sequence[np.ndarray], captions: Sequence[str]) -> Image.Image:
    """Return (3, S, S) uint8 images with their captions below, in rows of `COLUMNS`."""
    columns, rows = min(COLUMNS, len(pixels)), -(-len(pixels) // COLUMNS)
    width, height = SIDE + GAP, SIDE + CAPTION + GAP
    picture = Image.new("RGB", (columns * width - GAP, rows * height - GAP), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT_SIZE)
    for number, (image, caption) in enumerate(zip(pixels, captions, strict=True)):
        left, top = number % COLUMNS * width, number // COLUMNS * height
        shown = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        picture.paste(shown.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, top))
        place = (left + SIDE // 2, top + SIDE + CAPTION // 2)
        pen.text(place, caption[:LETTERS], "#333333", font, anchor="mm")
    return picture
