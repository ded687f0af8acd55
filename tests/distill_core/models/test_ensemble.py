"""Ensembles: several teachers that label together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill_core.config.committee import WeightingConfig
from distill_core.errors import ConfigError
from distill_core.labels.relabel import relabel_shard
from distill_core.labels.sources import OnlineLabels, StoredLabels
from distill_core.models.ensemble import Ensemble, as_ensemble
from distill_core.storage.image_shards import ImageRows
from distill_core.storage.label_shards import decode_labels, encode_labels
from tests.support.tiny import SIDE, WIDTH, tiny_batch, tiny_run, tiny_teacher

POOL = "squeeze.pool=[{model: {name: convnet3, width: 8}}]"


def test_an_ensemble_returns_the_mean_of_its_members_logits() -> None:
    members = [tiny_teacher(seed=0), tiny_teacher(seed=1), tiny_teacher(seed=2)]
    together, pixels = Ensemble(members), torch.randn(5, 3, SIDE, SIDE)
    mean = torch.stack([member(pixels).logits for member in members]).mean(dim=0)
    said = together(pixels)
    torch.testing.assert_close(said.logits, mean)
    assert said.features.shape == (5, 3 * WIDTH)
    assert together.spec.features == 3 * WIDTH


def test_a_weighted_ensemble_returns_the_weighted_mean_under_another_digest() -> None:
    members = [tiny_teacher(seed=0), tiny_teacher(seed=1)]
    weighting = WeightingConfig(priors=(56.4, 42.3), temperature=10)
    together, pixels = as_ensemble(members, weighting), torch.randn(5, 3, SIDE, SIDE)
    first, second = np.exp([5.64, 4.23]) / np.exp([5.64, 4.23]).sum()
    mean = first * members[0](pixels).logits + second * members[1](pixels).logits
    torch.testing.assert_close(together(pixels).logits, mean)
    assert together.digest != as_ensemble(members).digest


def test_a_stage_reports_the_accuracy_of_each_of_its_teachers() -> None:
    with pytest.raises(ConfigError, match="has 2 values, expected 1, one per teacher"):
        tiny_run("relabel.weighting={priors: [1, 2], temperature: 5}")
    priors = "recover.committee={weighting: {priors: [1, 2, 3], temperature: 5}}"
    with pytest.raises(ConfigError, match="has 3 values, expected 2"):
        tiny_run(POOL, "recover.teachers=[0, 1]", priors)
    with pytest.raises(ConfigError, match="voters = 2, but there are 1 teachers"):
        tiny_run("recover.committee={voters: 2}")


def test_one_teacher_is_not_wrapped_in_an_ensemble() -> None:
    teacher = tiny_teacher()
    assert as_ensemble([teacher]) is teacher


def test_the_digest_of_an_ensemble_follows_its_members_and_their_order() -> None:
    one, other = tiny_teacher(seed=0), tiny_teacher(seed=1)
    digests = {Ensemble([one, other]).digest, Ensemble([other, one]).digest, one.digest}
    assert len(digests) == 3


def test_stored_labels_of_an_ensemble_are_those_computed_online() -> None:
    together = Ensemble([tiny_teacher(seed=0), tiny_teacher(seed=1)])
    config = tiny_run("relabel.scheme=features").relabel
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, SIDE, SIDE)).astype(np.uint8)
    rows = ImageRows(tiny_batch(), pixels)
    data = encode_labels(relabel_shard(rows, [0, 1], config=config, teacher=together, seed=0))
    head = together.head.weight, together.head.bias
    stored = StoredLabels(
        [lambda view: decode_labels(data, [view])], [len(rows.images)], head, "cpu"
    )
    online = OnlineLabels([(rows.images, torch.from_numpy(pixels))], together, config, 0)
    for view in (0, 1):
        exact = online.view(view).logits(np.arange(4))
        torch.testing.assert_close(stored.view(view).logits(np.arange(4)), exact, atol=0.02, rtol=0)


def test_a_stage_cannot_ask_for_a_teacher_that_is_not_in_the_pool() -> None:
    assert tiny_run(POOL, "recover.teachers=[1, 0]", "relabel.teachers=[1]")
    with pytest.raises(ConfigError, match="squeeze has teachers 0 to 1"):
        tiny_run(POOL, "relabel.teachers=[0, 2]")


def test_a_member_of_the_pool_is_trained_like_the_first_teacher_by_default() -> None:
    run = tiny_run(POOL)
    member = run.of_teacher(1).squeeze
    assert member.model.title == "convnet3-w8"
    assert member.training == run.squeeze.training
    assert run.of_teacher(0).squeeze == run.squeeze.model_copy(update={"pool": ()})
