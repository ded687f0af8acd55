"""Streamed images give the same batches, and the same teacher, as resident ones."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from distill_core.data.decoding.processes import span_size
from distill_core.errors import ConfigError, DataError
from distill_core.machine_share import WORKERS, memory_share
from distill_core.squeeze.teacher import train_teacher
from distill_core.training.distributed import DistributedContext
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.streaming import IN_FLIGHT_BYTES, Streamed, fits, in_flight
from distill_core.training.supervised import Resident, StreamedSplit
from tests.support.killed import Killed, MemoryCheckpoints
from tests.support.teacher_training import TEST, TRAIN, run

PARTS = [np.random.default_rng(n).permutation(50)[:15] for n in range(12)]


def read(places: np.ndarray) -> np.ndarray:
    return TRAIN.pixels[places]


AHEAD = in_flight(15, 16, decoders=1)[1]


def streamed(pixels_of: Callable[[np.ndarray], np.ndarray] = read) -> Streamed:
    return Streamed(pixels_of, torch.from_numpy(TRAIN.labels), 16)


@pytest.mark.parametrize("world", [DistributedContext(), DistributedContext(1, 2)])
def test_every_batch_is_that_of_resident_images(world: DistributedContext) -> None:
    share, resident = world.share(15), Resident.of(TRAIN, device="cpu")
    ours = list(streamed().batches(PARTS, run(), first=7, share=share))
    theirs = list(resident.batches(PARTS, run(), first=7, share=share))
    assert len(ours) == len(theirs) == len(PARTS)
    for (images, labels), (same_images, same_labels) in zip(ours, theirs, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


def test_an_interrupted_training_on_streamed_images_gives_the_same_teacher() -> None:
    unread, checkpoints = StreamedSplit(read, TRAIN.labels), MemoryCheckpoints(dies_after=2)
    with pytest.raises(Killed):
        train_teacher(
            unread,
            TEST,
            run=run(),
            class_hash="ab",
            runtime=TrainingRuntime(checkpoints=checkpoints),
        )
    checkpoints.dies_after = None
    resumed = train_teacher(
        unread, TEST, run=run(), class_hash="ab", runtime=TrainingRuntime(checkpoints=checkpoints)
    )
    assert resumed == train_teacher(TRAIN, TEST, run=run(), class_hash="ab")


def test_reading_ahead_is_bounded_and_ends_with_the_consumer() -> None:
    begun: list[int] = []

    def counted(places: np.ndarray) -> np.ndarray:
        begun.append(len(places))
        return read(places)

    batches = streamed(counted).batches(PARTS, run(), first=0, share=slice(None))
    for number in range(1, 4):
        next(batches)
        assert number <= len(begun) <= number + AHEAD
    batches.close()
    ended = len(begun)
    assert ended <= 3 + AHEAD
    assert not any("ThreadPool" in t.name and t.is_alive() for t in threading.enumerate())


@pytest.mark.parametrize("decoders", [1, 2, 16, 64, 192])
@pytest.mark.parametrize("batch", [1, 15, 32, 256, 1024])
@pytest.mark.parametrize("side", [32, 224])
def test_the_batches_in_flight_occupy_all_decoders_within_the_limit(
    decoders: int, batch: int, side: int
) -> None:
    readers, ahead = in_flight(batch, side, decoders)
    requests = -(-batch // span_size(batch, decoders))
    size = batch * 3 * side**2
    limited = (readers + 3) * size > IN_FLIGHT_BYTES
    assert 2 <= readers <= ahead
    assert limited or (readers - 1) * requests >= decoders
    assert (readers - 2) * requests < decoders
    assert ahead == 2 or ahead * size <= IN_FLIGHT_BYTES


def test_an_image_that_cannot_be_read_ends_the_training_with_its_error() -> None:
    def broken(places: np.ndarray) -> np.ndarray:
        if 17 in places:
            raise DataError("train/dog/17.png: cannot be decoded.")
        return read(places)

    with pytest.raises(DataError, match=r"17\.png: cannot be decoded"):
        train_teacher(StreamedSplit(broken, TRAIN.labels), TEST, run=run(), class_hash="ab")


def test_eight_trainings_on_a_host_hold_a_quarter_of_its_memory_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("DISTILL_RESIDENT_BYTES", WORKERS):
        monkeypatch.delenv(variable, raising=False)
    images = memory_share() // 4 // (3 * 32**2)
    assert fits(images, 32, device="cpu")
    monkeypatch.setenv(WORKERS, "8")
    assert not fits(images, 32, device="cpu")
    assert not fits(images // 8 + 1, 32, device="cpu")
    assert fits(images // 8, 32, device="cpu")


def test_resident_images_take_a_quarter_of_the_memory_or_the_limit_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DISTILL_RESIDENT_BYTES", raising=False)
    assert fits(1000, 32, device="cpu")
    assert not fits(10**9, 224, device="cpu")
    monkeypatch.setenv("DISTILL_RESIDENT_BYTES", str(10 * 3 * 8 * 8))
    assert fits(10, 8, device="cpu")
    assert not fits(11, 8, device="cpu")
    monkeypatch.setenv("DISTILL_RESIDENT_BYTES", "2 GB")
    with pytest.raises(ConfigError, match="DISTILL_RESIDENT_BYTES: '2 GB', expected bytes"):
        fits(10, 8, device="cpu")
