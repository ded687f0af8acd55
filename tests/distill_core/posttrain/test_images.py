"""The images of a set are one array, which is filled shard by shard and shared by processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill_core.config.students import SetName
from distill_core.errors import DataError
from distill_core.posttrain import train
from distill_core.posttrain.images import TrainingImages, shared_images
from distill_core.posttrain.placing import PlacedImages
from distill_core.posttrain.student import StudentTask
from distill_core.posttrain.train import SoftLabels, train_on_shards
from distill_core.progress import Notice
from distill_core.storage.image_shards import ImageRows
from distill_core.training.supervised import Labelled
from distill_core.transforms.pixel_store import HostPixels
from tests.support.repository import ROOT
from tests.support.tiny import labelled, pixels, tiny_batch, tiny_run, tiny_teacher

SHARDS = [
    ImageRows(images, pixels(4, seed=n)) for n, images in enumerate(map(tiny_batch, range(3)))
]
DIGESTS = ["a" * 64, "b" * 64, "c" * 64]
SIZE = sum(rows.pixels.nbytes for rows in SHARDS)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def shared(
    shards: Sequence[ImageRows] = SHARDS, digests: Sequence[str] = DIGESTS
) -> TrainingImages:
    return shared_images(digests, lambda number: shards[number], size=SIZE)


def weights(images: Any, task: StudentTask, soft: SoftLabels) -> bytes:
    student = train_on_shards(task, images, soft, labelled(8, seed=1))
    return b"".join(value.detach().numpy().tobytes() for value in student.last.parameters())


def test_shared_images_are_those_of_the_shards() -> None:
    images, copied = shared(), TrainingImages.of(SHARDS)
    assert images.shards == copied.shards == tuple(rows.images for rows in SHARDS)
    assert np.array_equal(images.pixels, copied.pixels)
    assert images.labels.tolist() == [0, 1, 2, 3] * 3
    assert [(rows.start, rows.stop) for rows in images.slices()] == [(0, 4), (4, 8), (8, 12)]


def test_a_second_student_reads_no_shard_of_the_same_set() -> None:
    def refuse(number: int) -> ImageRows:
        raise AssertionError(f"shard {number} was read")

    first = shared()
    second = shared_images(DIGESTS, refuse, size=SIZE)
    assert np.array_equal(first.pixels, second.pixels)
    with pytest.raises(AssertionError, match="shard 0 was read"):
        shared_images(DIGESTS[::-1], refuse, size=SIZE)


def test_a_set_that_no_student_needs_any_more_is_read_again() -> None:
    first = shared()
    del first
    other = [ImageRows(rows.images, 255 - rows.pixels) for rows in SHARDS]
    assert np.array_equal(shared(other).pixels, 255 - TrainingImages.of(SHARDS).pixels)


@pytest.mark.parametrize("images_of", ["distilled", "hard_labels"])
@pytest.mark.parametrize("kind", ["cutmix", "none"])
def test_a_student_is_the_same_wherever_its_images_are(
    images_of: SetName, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(
        *("posttrain.epochs=2", "posttrain.batch_size=5"),
        *("relabel.scheme=online", f"relabel.mix.kind={kind}"),
    )
    task, soft = StudentTask(run, run.posttrain.students[0], 0, images_of), SoftLabels(tiny_teacher)
    of_shards = weights(SHARDS, task, soft)
    assert weights(shared(), task, soft) == of_shards
    monkeypatch.setattr(train, "place", on_host)
    assert weights(SHARDS, task, soft) == of_shards


def test_images_of_several_sides_or_of_no_shard_are_refused() -> None:
    small = ImageRows(tiny_batch(), np.zeros((4, 3, 8, 8), np.uint8))
    with pytest.raises(DataError, match=r"2 image shards of sides \[8, 16\]"):
        shared([SHARDS[0], small], DIGESTS[:2])
    with pytest.raises(DataError, match=r"2 image shards of sides \[8, 16\]"):
        TrainingImages.of([SHARDS[0], small])
    with pytest.raises(DataError, match=r"0 image shards of sides \[\]"):
        shared([], [])


def on_host(images: Labelled, device: str, notice: Notice) -> PlacedImages:
    """Place images as if they did not fit the device."""
    pixels = HostPixels(torch.from_numpy(images.pixels), torch.device(device))
    return PlacedImages(pixels, images.labels)


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is counted as on Linux")
def test_filling_the_array_holds_one_shard_beside_it() -> None:
    command = [sys.executable, "-m", "tests.support.filled_images"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    pixels, copied, shared = map(int, done.stdout.split())
    assert shared < 1.2 * pixels
    assert copied > 1.9 * pixels  # what a copy of all shards takes
