from __future__ import annotations

import numpy as np
import pytest
import torch

from distill_core.config.students import MixConfig
from distill_core.seeds import generator
from distill_core.transforms.mixing import MIXES, apply_mix, sample_mix

COUNT, SIDE = 64, 16


def images(seed: int) -> torch.Tensor:
    return torch.rand(COUNT, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def config(kind: str) -> MixConfig:
    return MixConfig.model_validate({"kind": kind, "alpha": 0.8})


@pytest.mark.parametrize("kind", sorted(MIXES))
def test_a_draw_replays_exactly_and_row_by_row(kind: str) -> None:
    mix = sample_mix(generator(5), config(kind), count=COUNT, side=SIDE)
    views, partners = images(0), images(1)
    whole = apply_mix(kind, views, partners, mix)
    assert torch.equal(whole, apply_mix(kind, views, partners, mix))
    some = np.array([3, 1, 60])
    part = apply_mix(kind, views[some], partners[some], mix.rows(some))
    assert torch.equal(part, whole[some])


@pytest.mark.parametrize("kind", sorted(MIXES))
def test_results_stay_in_the_pixel_range(kind: str) -> None:
    mix = sample_mix(generator(5), config(kind), count=COUNT, side=SIDE)
    mixed = apply_mix(kind, images(0), images(1), mix)
    assert mixed.min() >= 0
    assert mixed.max() <= 1


def test_cutmix_pastes_the_partner_over_the_area_given_by_lam() -> None:
    mix = sample_mix(generator(2), config("cutmix"), count=COUNT, side=SIDE)
    mixed = apply_mix("cutmix", torch.zeros(COUNT, 3, SIDE, SIDE), images(1) + 1, mix)
    own = (mixed[:, 0] == 0).float().mean((1, 2))
    np.testing.assert_allclose(own.numpy(), mix.lam, atol=1e-6)
    assert len(set(mix.partners.tolist())) == COUNT


def test_mixup_blends_by_lam() -> None:
    mix = sample_mix(generator(2), config("mixup"), count=COUNT, side=SIDE)
    mixed = apply_mix("mixup", torch.ones(COUNT, 3, 2, 2), torch.zeros(COUNT, 3, 2, 2), mix)
    np.testing.assert_allclose(mixed[:, 0, 0, 0].numpy(), mix.lam, rtol=1e-6)


def test_cutout_fills_one_hole_of_half_the_side_with_one_colour() -> None:
    mix = sample_mix(generator(2), config("cutout"), count=COUNT, side=SIDE)
    mixed = apply_mix("cutout", images(0) + 2, images(1), mix)
    hole = mixed[:, 0] <= 1
    assert hole.sum((1, 2)).max() == (SIDE // 2) ** 2
    for n in range(COUNT):
        assert (mixed[n, :, hole[n]] == torch.from_numpy(mix.colours[n])[:, None]).all()


def test_mix_kind_none_changes_nothing() -> None:
    mix = sample_mix(generator(2), config("none"), count=COUNT, side=SIDE)
    assert torch.equal(apply_mix("none", images(0), images(1), mix), images(0))
