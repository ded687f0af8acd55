"""The loss and the size of each label scheme on the labels of a trained teacher.

The teacher is trained on scikit-learn's handwritten digits for a few seconds; T = 20 throughout.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from benchmarks.information import share_lost
from distill_core.config.load import load_run
from distill_core.config.schema import RunConfig
from distill_core.labels.relabel import relabel_shard
from distill_core.labels.sources import OnlineLabels, StoredLabels
from distill_core.models.files import load_teacher
from distill_core.models.teacher import FrozenTeacher
from distill_core.sharding import ImageId
from distill_core.squeeze.teacher import train_teacher
from distill_core.storage.image_shards import ImageRows
from distill_core.storage.label_shards import decode_labels, encode_labels
from distill_core.training.supervised import Labelled

SIDE, WIDTH, IMAGES, VIEWS = 16, 64, 100, 4
# Share of the information at most, bytes of what the teacher says of a label.
STORED = {
    "logits": (("scheme=logits",), 1e-6, 20),
    "8 bits": (("scheme=features", "bits=8"), 1e-4, WIDTH),
    "4 bits": (("scheme=features", "bits=4"), 5e-3, WIDTH / 2),
    "top 3": (("scheme=topk", "topk=3"), 0.5, 14),
}


def run_of(*overrides: str) -> RunConfig:
    network = f"squeeze.model={{name: convnet3, width: {WIDTH}}}"
    settings = (f"data.side={SIDE}", network, "squeeze.training.epochs=4", "relabel.crop=[0.5, 1]")
    return load_run("digits-demo", (*settings, *(f"relabel.{o}" for o in overrides)))


@pytest.fixture(scope="module")
def digits() -> Labelled:
    data = load_digits()
    grey = (data.images * 15.9).repeat(2, axis=1).repeat(2, axis=2).astype(np.uint8)
    return Labelled(np.repeat(grey[:, None], 3, axis=1), data.target.astype(np.int64))


@pytest.fixture(scope="module")
def teacher(digits: Labelled) -> FrozenTeacher:
    train, test = (Labelled(digits.pixels[part], digits.labels[part]) for part in PARTS)
    made = train_teacher(train, test, run=run_of(), class_hash="0" * 16)
    assert made.accuracy.top1 > 80
    return load_teacher(made.files["safetensors"], made.files["json"])


PARTS = (slice(0, 1400), slice(1400, None))


@pytest.mark.parametrize("stored", STORED)
def test_the_documented_loss_and_size_of_a_label_hold_for_a_trained_teacher(
    stored: str, teacher: FrozenTeacher, digits: Labelled
) -> None:
    overrides, most, each = STORED[stored]
    config = run_of(*overrides).relabel
    names = tuple(ImageId(int(c), f"d{c}", n) for n, c in enumerate(digits.labels[:IMAGES]))
    rows = ImageRows(names, digits.pixels[:IMAGES])
    made = relabel_shard(rows, range(VIEWS), config=config, teacher=teacher, seed=0)
    words = [part for part in (made.values, made.ids, made.rest) if part is not None]
    assert sum(part.nbytes for part in words) == each * IMAGES * VIEWS
    data, every = encode_labels(made), np.arange(IMAGES)
    head = teacher.head.weight, teacher.head.bias
    kept = StoredLabels(
        [lambda view: decode_labels(data, [view])], [len(rows.images)], head, "cpu", rest="mean"
    )
    asked = OnlineLabels([(names, torch.from_numpy(rows.pixels))], teacher, config, 0)
    lost = [
        share_lost(asked.view(v).logits(every).numpy(), kept.view(v).logits(every).numpy(), 20.0)
        for v in range(VIEWS)
    ]
    assert np.mean(lost) <= most
