"""A test split that is read in blocks gives the accuracy of one in memory."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill_core.data.ingest import ingest
from distill_core.data.real_images import RealImages
from distill_core.evaluation.metrics import EVALUATION_BATCH
from distill_core.storage.store import Store
from distill_core.training import streaming, supervised
from distill_core.training.distributed import DistributedContext
from distill_core.training.streaming import StreamedSplit, evaluation_split
from distill_core.training.supervised import Labelled, evaluate
from tests.support.datasets import data_config, image_folder
from tests.support.teacher_training import run, split

SIDE = 16
TEST = split(4 * EVALUATION_BATCH + 7, 3)
BATCH_BYTES = EVALUATION_BATCH * 3 * SIDE**2


class Brightest(nn.Module):
    """Finds the class of most images: the brightest channel of one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * images[:, :, 0, 0]


class Watched:
    """Reads the test images, and counts them."""

    def __init__(self) -> None:
        self.read = self.closed = 0
        self.lock = threading.Lock()

    def pixels_of(self, places: np.ndarray) -> np.ndarray:
        with self.lock:
            self.read += len(places)
        return TEST.pixels[places]

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("limit", [1, 2 * BATCH_BYTES, 100 * BATCH_BYTES])
def test_blocks_give_the_accuracy_of_images_in_memory(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "BLOCKS_BYTES", limit)
    watched = Watched()
    blocks = StreamedSplit(watched.pixels_of, TEST.labels, close=watched.close)
    whole = evaluate(Brightest(), TEST, run(), device="cpu")
    assert 20 < whole.top1 < 100
    assert evaluate(Brightest(), blocks, run(), device="cpu") == whole
    assert (watched.read, watched.closed) == (len(TEST.labels), 1)


@pytest.mark.parametrize(("limit", "ahead"), [(1, 1), (3 * BATCH_BYTES, 2), (10**9, 4)])
def test_the_blocks_that_are_held_are_bounded(
    limit: int, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "BLOCKS_BYTES", limit)
    watched = Watched()
    parts = supervised.evaluation_parts(len(TEST.labels))
    blocks = StreamedSplit(watched.pixels_of, TEST.labels, close=watched.close).blocks(parts, SIDE)
    next(blocks)
    blocks.close()
    assert watched.read <= (1 + ahead) * EVALUATION_BATCH
    assert watched.closed == 1


def test_the_processes_of_a_gang_read_disjoint_blocks() -> None:
    read: list[int] = []

    class Rank(DistributedContext):
        def sum(self, counts):  # type: ignore[no-untyped-def]
            return tuple(counts)

        def share_buffers(self, model: nn.Module) -> None:
            pass

    def pixels_of(places: np.ndarray) -> np.ndarray:
        read.extend(places.tolist())
        return TEST.pixels[places]

    for rank in (0, 1):
        blocks = StreamedSplit(pixels_of, TEST.labels)
        evaluate(Brightest(), blocks, run(), device="cpu", world=Rank(rank, 2))
    assert sorted(read) == list(range(len(TEST.labels)))


def test_a_small_split_is_held_in_memory_and_a_larger_one_is_read_in_blocks(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = data_config(image_folder(tmp_path / "data"))
    images = RealImages(config, ingest(config, store), "test")
    small = evaluation_split(images, side=8)
    assert isinstance(small, Labelled)
    monkeypatch.setattr(streaming, "BLOCKS_BYTES", 1)
    large = evaluation_split(images, side=8)
    assert isinstance(large, StreamedSplit)
    places = [np.arange(len(small.labels))]
    assert np.array_equal(next(large.blocks(places, 8)), small.pixels)
    assert np.array_equal(large.labels, small.labels)
