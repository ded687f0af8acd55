from __future__ import annotations

import json

import torch

from distill_core.metrics import Accuracy, count_hits


def test_hits_at_one_and_five() -> None:
    logits = torch.arange(8.0).repeat(3, 1)
    assert count_hits(logits, torch.tensor([7, 3, 2])).tolist() == [1, 2]


def test_with_fewer_than_five_classes_all_of_them_are_the_top_five() -> None:
    assert count_hits(torch.arange(2.0).repeat(3, 1), torch.tensor([1, 0, 0])).tolist() == [1, 3]


def test_hits_agree_with_a_count_one_image_at_a_time() -> None:
    logits = torch.randn(40, 9, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 9
    ranks = [int((row > row[label]).sum()) for row, label in zip(logits, labels, strict=True)]
    by_hand = [sum(rank < 1 for rank in ranks), sum(rank < 5 for rank in ranks)]
    assert count_hits(logits, labels).tolist() == by_hand


def test_an_accuracy_survives_json() -> None:
    accuracy = Accuracy(61.5, 93.25)
    assert Accuracy(**json.loads(json.dumps(accuracy.to_dict()))) == accuracy
