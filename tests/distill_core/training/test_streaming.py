"""Streamed images give the same batches, and the same teacher, as resident ones."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from distill_core.data.decoding.crops import CropDraws
from distill_core.data.decoding.processes import span_size
from distill_core.errors import ConfigError, DataError
from distill_core.keys import squeeze_key
from distill_core.machine_share import WORKERS, memory_share
from distill_core.squeeze.teacher import train_teacher
from distill_core.training.distributed import DistributedContext
from distill_core.training.intervals import SaveInterval
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.streaming import (
    IN_FLIGHT_BYTES,
    Streamed,
    StreamedSplit,
    fits,
    in_flight,
)
from distill_core.training.supervised import Labelled, Resident, augmentation_of
from distill_core.transforms.pixel_space import normalise
from tests.support.killed import Killed, MemoryCheckpoints
from tests.support.teacher_training import TEST, TRAIN, run

PARTS = [np.random.default_rng(n).permutation(50)[:15] for n in range(12)]


def read(places: np.ndarray) -> np.ndarray:
    return TRAIN.pixels[places]


AHEAD = in_flight(15, 16, decoders=1)[1]


def streamed(pixels_of: Callable[[np.ndarray], np.ndarray] = read) -> Streamed:
    return Streamed(StreamedSplit(pixels_of, TRAIN.labels), torch.from_numpy(TRAIN.labels))


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


WHOLE: dict[str, Any] = {
    "crop_from": "image",
    "augment": {"crop": (0.3, 1.0), "flip": False, "cutout": 0.25},
}


class Whole:
    """Cuts crops from images of other proportions than their squares."""

    def __init__(self) -> None:
        self.drawn: list[CropDraws] = []

    def crops_of(self, places: np.ndarray, cuts: CropDraws) -> np.ndarray:
        assert len(cuts.places) == len(places)
        self.drawn.append(cuts)
        boxes = [cuts.rows(np.array([n])).boxes(16, 12)[0] for n in range(len(places))]
        images = [Image.fromarray(TRAIN.pixels[place].transpose(1, 2, 0)) for place in places]
        squares = [
            image.resize((12, 16)).crop((left, top, left + across, top + down)).resize((16, 16))
            for image, (top, left, down, across) in zip(images, boxes, strict=True)
        ]
        return np.stack([np.asarray(square).transpose(2, 0, 1) for square in squares])

    @property
    def split(self) -> StreamedSplit:
        return StreamedSplit(read, TRAIN.labels, crops_of=self.crops_of)


def test_the_decoder_cuts_the_crops_of_a_step_and_nothing_crops_them_again() -> None:
    whole, world, config = Whole(), DistributedContext(1, 2), run(training=WHOLE)
    share = world.share(15)
    source = Streamed(whole.split, torch.from_numpy(TRAIN.labels))
    (images, _), *_ = source.batches(PARTS[:1], config, first=7, share=share)
    draw = augmentation_of(config, 15, step=7, share=share)
    assert draw.crops is None
    assert draw.cuts is not None
    assert np.array_equal(whole.drawn[0].areas, draw.cuts.areas)
    assert draw.holes is not None
    pixels = torch.from_numpy(whole.crops_of(PARTS[0][share], draw.cuts))
    expected = normalise(pixels, mean=config.data.mean, std=config.data.std)
    erased = images == 0
    assert 0 < erased.float().mean() < 0.1
    assert torch.equal(images.masked_fill(erased, 0), expected.masked_fill(erased, 0))


def test_the_draws_of_other_kinds_do_not_depend_on_what_crops_are_cut_from() -> None:
    flips = {"augment": WHOLE["augment"] | {"flip": True}}
    square, whole = (
        augmentation_of(run(training=changes), 15, step=3, share=slice(None))
        for changes in (flips, WHOLE | flips)
    )
    assert square.flips is not None
    assert square.crops is not None
    assert whole.cuts is not None
    assert np.array_equal(square.flips, whole.flips)
    assert np.array_equal(square.holes, whole.holes)
    assert np.array_equal(square.crops.boxes, whole.cuts.boxes(16, 16))


def test_a_training_on_crops_of_whole_images_resumes_inside_an_epoch() -> None:
    settings: dict[str, Any] = {"run": run(training=WHOLE), "class_hash": "ab"}
    undisturbed = train_teacher(Whole().split, TEST, **settings)
    checkpoints = MemoryCheckpoints(dies_after=(1, 1))
    runtime = TrainingRuntime(checkpoints=checkpoints, interval=SaveInterval(steps=1))
    with pytest.raises(Killed):
        train_teacher(Whole().split, TEST, runtime=runtime, **settings)
    checkpoints.dies_after = None
    whole = Whole()
    assert train_teacher(whole.split, TEST, runtime=runtime, **settings) == undisturbed
    assert len(whole.drawn) == 5  # of nine steps
    assert undisturbed != train_teacher(
        TRAIN, TEST, run=run(training=WHOLE | {"crop_from": "square"}), class_hash="ab"
    )


@pytest.mark.parametrize("split", [TRAIN, StreamedSplit(read, TRAIN.labels)])
def test_squares_are_refused_where_crops_are_cut_from_whole_images(
    split: Labelled | StreamedSplit,
) -> None:
    with pytest.raises(ConfigError, match="crop_from=image needs a split that cuts crops"):
        train_teacher(split, TEST, run=run(training=WHOLE), class_hash="ab")


@pytest.mark.parametrize("augment", [{"crop": None}, {"crop": (0.3, 1.0), "pad_crop": 2}])
def test_crops_of_whole_images_need_a_crop_and_no_padding(augment: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"crop_from=image requires augment\.crop"):
        run(training={"crop_from": "image", "augment": augment})


def test_the_settings_enter_the_key_only_where_they_are_set() -> None:
    def key(**training: Any) -> str:
        config = run(training={"augment": WHOLE["augment"]} | training)
        return squeeze_key(config, class_hash="c", train="a", test="b", checkpoint=None)

    assert key() == key(crop_from="square", decode="exact")
    assert len({key(), key(crop_from="image"), key(decode="scaled")}) == 3
    tree = run().model_dump(mode="json")["squeeze"]["training"]
    assert not {"crop_from", "decode"} & tree.keys()
