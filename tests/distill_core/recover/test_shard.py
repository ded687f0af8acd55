"""A class shard is recovered by the core alone: its rows, their order, its trace, its errors."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from distill_core.errors import ConfigError
from distill_core.recover.batching import LaunchLimit
from distill_core.recover.optimise import recover_batch
from distill_core.recover.setup import RecoverySetup
from distill_core.recover.shard import RecoveredShard, TeacherStatistics, recover_shard
from distill_core.recover.trace import SNAPSHOTS, encode_trace, is_traced, traced_every
from distill_core.selection.class_images import ClassImages
from distill_core.sharding import ImageId
from distill_core.storage.image_shards import decode_images, decode_pixels, encode_images
from tests.support.term_bench import batch, config_of, expected, real_images, teacher_of
from tests.support.tiny import CLASSES, SIDE, tiny_batch, tiny_recover, tiny_teacher

BATCHES = [tiny_batch(1), tiny_batch(0), tiny_batch(2, classes=2)]
REAL = np.random.default_rng(0).integers(0, 256, (CLASSES * 3, 3, SIDE, SIDE)).astype(np.uint8)
IMAGES = ClassImages(lambda label: np.arange(3 * label, 3 * label + 3), lambda rows: REAL[rows])


def setup(*overrides: str) -> RecoverySetup:
    return RecoverySetup(tiny_recover("recover.steps=4", *overrides), [tiny_teacher()], seed=0)


def recovered(*overrides: str, **changes: Any) -> RecoveredShard:
    return recover_shard(BATCHES, setup(*overrides), **changes)


def test_rows_are_in_storage_order_with_the_pixels_and_losses_of_their_batches() -> None:
    shard = recovered()
    names = [(image.label, image.ipc_index) for image in shard.rows.images]
    assert names == sorted(names)
    alone = [recover_batch(images, setup()) for images in BATCHES]
    for images, one in zip(BATCHES, alone, strict=True):
        for place, image in enumerate(images):
            row = shard.rows.images.index(image)
            assert np.array_equal(shard.rows.pixels[row], one.pixels[place])
            assert shard.losses["cross_entropy"][row] == one.losses["cross_entropy"][place]
    assert [one.trace for one in shard.batches] == [one.trace for one in alone]


@pytest.mark.parametrize("limit", [LaunchLimit(1), LaunchLimit(2), LaunchLimit(None, split=3)])
def test_the_size_of_a_launch_changes_no_byte(limit: LaunchLimit) -> None:
    one, other = recovered(), recovered(limit=limit)
    assert np.array_equal(one.rows.pixels, other.rows.pixels)
    assert encode_trace(one.batches) == encode_trace(other.batches)


def test_a_launch_is_bounded_by_the_device_the_batches_and_the_split() -> None:
    sizes = [
        LaunchLimit(groups, split).size(BATCHES, side=SIDE, device="cpu")
        for groups, split in [(None, 1), (2, 1), (9, 1), (3, 2), (3, 9)]
    ]
    assert sizes == [3, 2, 3, 1, 1]


def test_progress_adds_up_over_the_batches() -> None:
    seen: list[tuple[int, int]] = []
    recovered(limit=LaunchLimit(2), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 12), (4, 12), (6, 12), (8, 12), (9, 12), (10, 12), (11, 12), (12, 12)]


def test_real_starts_are_read_and_kept_by_a_recovery_of_no_steps() -> None:
    shard = recovered("recover.init=real", "recover.steps=0", real=IMAGES)
    for image, pixels in zip(shard.rows.images, shard.rows.pixels, strict=True):
        assert any(np.array_equal(pixels, one) for one in REAL[3 * image.label :][:3])


def test_selected_starts_are_those_of_the_selection() -> None:
    def selected(image: ImageId) -> int:
        return 2 - image.ipc_index

    shard = recovered("recover.init=judged", "recover.steps=0", real=IMAGES, selected=selected)
    for image, pixels in zip(shard.rows.images, shard.rows.pixels, strict=True):
        assert np.array_equal(pixels, REAL[3 * image.label + selected(image)])


@pytest.mark.parametrize(
    ("given", "message"),
    [({}, "recover.init = judged: it starts from real"), ({"real": IMAGES}, "no selection")],
)
def test_starts_that_are_not_given_are_asked_for(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recovered("recover.init=judged", **given)


def test_statistics_of_every_teacher_reach_the_terms() -> None:
    config = config_of("conv_statistics", "class_bn_statistics").model_copy(update={"steps": 3})
    setup = RecoverySetup(config, [teacher_of()], seed=0)
    shard = recover_shard([batch()], setup, statistics=[TeacherStatistics(*real_images())])
    alone = recover_batch(batch(), setup, real=[expected(batch(), config)])
    assert shard.batches[0].trace == alone.trace
    assert shard.batches[0].trace[0]["conv_statistics"] > 0


def test_statistics_that_are_missing_are_named_by_their_term() -> None:
    setup = RecoverySetup(config_of("conv_statistics"), [teacher_of()], seed=0)
    with pytest.raises(ConfigError, match="conv_statistics compares with real images"):
        recover_shard([batch()], setup)


def test_the_file_of_a_shard_is_read_back_and_its_trace_holds_curves_and_snapshots() -> None:
    shard = recovered()
    data = encode_images(shard.rows, encoding="png", losses=shard.losses)
    assert np.array_equal(decode_images(data).pixels, shard.rows.pixels)
    record = json.loads(encode_trace(shard.batches))
    assert [len(part["trace"]) for part in record["batches"]] == [4, 4, 4]
    assert record["batches"][0]["images"] == [[i.wnid, i.ipc_index] for i in BATCHES[0]]
    steps = sorted({round(share * 4) for share in SNAPSHOTS})
    assert [snapshot["step"] for snapshot in record["snapshots"]] == steps
    last = decode_pixels(base64.b64decode(record["snapshots"][-1]["png"]))
    assert np.array_equal(last, shard.batches[0].pixels[0])


def test_a_long_recovery_is_traced_about_fifty_times_and_at_its_end() -> None:
    traced = [step for step in range(1030) if is_traced(step, 1030)]
    assert traced == [*range(0, 1030, 20), 1029]
    assert (traced_every(49), traced_every(0)) == (1, 1)
