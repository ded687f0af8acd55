from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from distill_core.evaluation.accuracy import Accuracy, Hits, total
from distill_core.evaluation.metrics import count_hits, is_hit


def test_hits_at_one_and_five() -> None:
    logits = torch.arange(8.0).repeat(3, 1)
    assert is_hit(logits, torch.tensor([7, 3, 2])).sum(0).tolist() == [1, 2]


def test_with_fewer_than_five_classes_all_of_them_are_the_top_five() -> None:
    hits = is_hit(torch.arange(2.0).repeat(3, 1), torch.tensor([1, 0, 0]))
    assert hits.sum(0).tolist() == [1, 3]


def test_hits_agree_with_a_count_one_image_at_a_time() -> None:
    logits = torch.randn(40, 9, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 9
    ranks = [int((row > row[label]).sum()) for row, label in zip(logits, labels, strict=True)]
    assert is_hit(logits, labels).tolist() == [[rank < 1, rank < 5] for rank in ranks]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def test_evaluation_is_independent_of_the_batch_size_and_restores_the_mode() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 4), dtype=np.uint8)
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        said = model.eval()(torch.from_numpy(pixels) / 255).argmax(1).numpy()
    labels = np.where(np.arange(7) < 5, said, 1 - said)  # five right, two wrong
    model.train()
    for batch in (1, 3, 500):
        counted = count_hits(
            model, pixels, labels, mean=(0, 0, 0), std=(1, 1, 1), device="cpu", batch=batch
        )
        assert total(counted) == Hits(images=7, top1=5, top5=7)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("hits", "accuracy"),
    [(Hits(3, 1, 2), Accuracy(33.3333, 66.6667)), (Hits(), Accuracy(0.0, 0.0))],
)
def test_hits_become_percent(hits: Hits, accuracy: Accuracy) -> None:
    assert hits.accuracy == accuracy


def test_an_accuracy_survives_json() -> None:
    accuracy = Accuracy(61.5, 93.25)
    assert Accuracy(**json.loads(json.dumps(accuracy.to_dict()))) == accuracy
