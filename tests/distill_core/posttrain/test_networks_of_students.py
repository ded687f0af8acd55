"""Students of every family: a training gives finite weights and logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill_core.labels.sources import ViewsOnly
from distill_core.posttrain.student import StudentTask
from distill_core.posttrain.train import train_student
from distill_core.training.supervised import Labelled
from tests.golden.numbers import labelled, pixels
from tests.support.tiny import SIDE, tiny_batch, tiny_run

NAMES = [
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "timm:regnety_002",
    pytest.param("swin_t", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_student_is_trained(name: str) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    students = f"posttrain.students=[{{name: '{name}'}}]"
    run = tiny_run(students, "posttrain.epochs=1", "posttrain.batch_size=2")
    images = tiny_batch()
    data = Labelled(pixels(len(images)), np.array([image.label for image in images]))
    views = ViewsOnly([images], run.relabel, run.seed, SIDE)
    task = StudentTask(run, run.posttrain.students[0], 0, "hard_labels")
    student = train_student(task, data, views, labelled(8, seed=1))
    assert all(bool(torch.isfinite(p).all()) for p in student.last.parameters())
    moved = zip(student.last.parameters(), student.ema.parameters(), strict=True)
    assert any(not torch.equal(last, average) for last, average in moved)
    student.last.eval()
    # Large numbers: after one epoch, outputs for such small images hardly depend on the image.
    images_seen = 1000 * torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = student.last(images_seen)
    assert bool(torch.isfinite(logits).all())
    assert not torch.equal(logits[0], logits[1])
