"""Predicted label bytes compared with those of real labels, for every label setting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill_core.labels.encoding import quantise
from distill_core.labels.relabel import relabel_shard
from distill_core.sharding import ClassEntry, plan_shards
from distill_core.storage.image_shards import ImageRows
from distill_core.storage.label_shards import encode_labels
from flows.estimate import workload
from flows.estimate.stored_bytes import nibbles
from tests.support.tiny import CLASSES, SIDE, tiny_run, tiny_teacher

COMMON = ("ipc=15", "recover.ipc_range=10", "relabel.views=6", "relabel.views_per_shard=4")
KINDS = {
    "features": ("relabel.scheme=features",),
    "4 bits": ("relabel.scheme=features", "relabel.bits=4"),
    "top": ("relabel.scheme=topk", "relabel.topk=3"),
    "patches": ("relabel.patches=4",),
    "operations": ("relabel.rand_augment={operations: 2, magnitude: 6, spread: 1}",),
    "pruned": ("relabel.prune=0.5",),
}


@pytest.mark.parametrize("kind", KINDS)
def test_predicted_label_bytes_are_close(kind: str) -> None:
    network = "squeeze.model={name: convnet3, width: 8}"
    run = tiny_run(*COMMON, network, "posttrain.sets=[distilled]", *KINDS[kind])
    relabel, teacher, rng = run.relabel, tiny_teacher(), np.random.default_rng(0)
    shards = plan_shards(
        [ClassEntry(number, f"n{number:08d}") for number in range(CLASSES)],
        ipc=run.ipc,
        ipc_range=run.recover.ipc_range,
        batch_size=run.recover.batch_size,
        composition=run.recover.composition,
    )
    written, files = 0, 0
    for shard in shards:
        images = tuple(image for batch in shard.batches for image in batch)
        rows = ImageRows(images, rng.integers(0, 256, (len(images), 3, SIDE, SIDE), np.uint8))
        for first in range(0, relabel.stored_views, relabel.views_per_shard):
            views = range(first, min(first + relabel.views_per_shard, relabel.stored_views))
            made = relabel_shard(rows, views, config=relabel, teacher=teacher, seed=0)
            written, files = written + len(encode_labels(made)), files + 1
    plan = workload.plan_run(run)
    assert plan.label_shards == files
    assert plan.label_bytes == pytest.approx(written, rel=0.15)


@pytest.mark.parametrize("width", [6, 7])
def test_stand_ins_of_four_bits_are_coded_and_packed_as_features_are(width: int) -> None:
    features = np.random.default_rng(0).uniform(0, 255, (3, 40, width)).astype(np.float32)
    codes, _ = quantise(torch.from_numpy(features), bits=4)
    assert np.array_equal(nibbles(features), codes.numpy())
