"""A student is trained on image shards with the labels that its set and its config need."""

from __future__ import annotations

import pytest
import torch

from distill_core.config.students import SetName
from distill_core.errors import ConfigError
from distill_core.labels.relabel import relabel_shard
from distill_core.models.teacher import FrozenTeacher
from distill_core.posttrain.student import StudentTask
from distill_core.posttrain.train import SoftLabels, train_on_shards
from distill_core.storage.image_shards import ImageRows
from distill_core.storage.label_shards import LabelRows
from tests.golden.numbers import labelled, pixels
from tests.support.tiny import tiny_batch, tiny_run, tiny_teacher

SHARDS = [
    ImageRows(images, pixels(4, seed=n)) for n, images in enumerate(map(tiny_batch, range(2)))
]
SETTINGS = ("posttrain.epochs=3", "posttrain.batch_size=4", "relabel.views=3")


def weights(scheme: str, images_of: SetName, soft: SoftLabels) -> torch.Tensor:
    run = tiny_run(*SETTINGS, f"relabel.scheme={scheme}")
    task = StudentTask(run, run.posttrain.students[0], 0, images_of)
    student = train_on_shards(task, SHARDS, soft, labelled(8, seed=1))
    assert student.result["images"] == 8
    return torch.cat([value.flatten() for value in student.last.parameters()])


def stored(scheme: str) -> SoftLabels:
    config = tiny_run(*SETTINGS, f"relabel.scheme={scheme}").relabel

    def reader(rows: ImageRows, view: int) -> LabelRows:
        return relabel_shard(rows, [view], config=config, teacher=tiny_teacher(), seed=0)

    readers = [lambda view, rows=rows: reader(rows, view) for rows in SHARDS]
    return SoftLabels(tiny_teacher, readers)


def test_stored_and_online_labels_teach_nearly_the_same() -> None:
    online = weights("online", "distilled", SoftLabels(tiny_teacher))
    kept = weights("logits", "distilled", stored("logits"))
    torch.testing.assert_close(kept, online, atol=2e-2, rtol=0)
    assert not torch.equal(kept, online)  # float16


def test_stored_labels_that_are_missing_are_named() -> None:
    with pytest.raises(ConfigError, match="labels of 0 image shards, 2 expected"):
        weights("logits", "distilled", SoftLabels(tiny_teacher))


def test_hard_labels_load_no_teacher_and_teach_something_else() -> None:
    def refuse() -> FrozenTeacher:
        raise AssertionError("a teacher was loaded")

    hard = weights("online", "hard_labels", SoftLabels(refuse))
    soft = weights("online", "distilled", SoftLabels(tiny_teacher))
    assert (hard - soft).abs().max() > 1e-3
    with pytest.raises(AssertionError, match="a teacher was loaded"):
        weights("online", "distilled", SoftLabels(refuse))
