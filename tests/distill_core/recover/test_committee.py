"""A committee: several teachers that vote in every step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill_core.config.committee import CommitteeConfig, WeightingConfig
from distill_core.config.recovery import RecoverConfig
from distill_core.errors import ConfigError
from distill_core.models.ensemble import voters, weights
from distill_core.recover.batching import launches
from distill_core.recover.goals import Goal, joint_goal
from distill_core.recover.optimise import recover_batch, recover_together
from distill_core.recover.setup import RecoverySetup
from distill_core.recover.step import Part, recover_step
from distill_core.recover.terms import build_objective
from distill_core.sharding import Batch
from distill_core.transforms.pixel_space import PixelSpace
from distill_core.transforms.views import sample_view, sampling_grid
from tests.support.tiny import MEAN, SIDE, STD, tiny_batch, tiny_run, tiny_teacher

PRIORS = WeightingConfig(priors=(56.4, 42.3, 52.5), temperature=5)
THREE = "squeeze.pool=[{model: {name: convnet3}}, {model: {name: convnet3}}]"
TEACH = "recover.teachers=[0, 1, 2]"
TEACHERS = [tiny_teacher(seed=n) for n in range(3)]


def config(*overrides: str) -> RecoverConfig:
    return tiny_run(THREE, "recover.steps=6", *overrides).recover


def recover(
    *overrides: str, teachers: tuple[int, ...] = (0, 1, 2), batch: Batch | None = None
) -> np.ndarray:
    setup = RecoverySetup(
        config(f"recover.teachers={[*range(len(teachers))]}", *overrides),
        [TEACHERS[n] for n in teachers],
        seed=0,
    )
    return recover_batch(batch or tiny_batch(), setup).pixels


def goal(number: int) -> Goal:
    space = PixelSpace.of(MEAN, STD, torch.empty(0))
    objective = build_objective({"cross_entropy": 1.0, "bn_statistics": 0.01})
    return Goal(torch.arange(4), TEACHERS[number], objective, space, config())


def test_weights_are_the_softmax_of_the_priors_over_the_voters() -> None:
    expected = np.exp(np.array([56.4, 52.5]) / 5)
    np.testing.assert_allclose(weights(PRIORS, (0, 2)), expected / expected.sum())
    assert weights(None, (0, 2)) == (0.5, 0.5)
    assert weights(WeightingConfig(priors=(5000, 0), temperature=1), (0, 1)) == (1.0, 0.0)


def test_all_pairs_vote_in_order_and_start_again() -> None:
    cycle = CommitteeConfig(voters=2, choice="cycle")
    chosen = [voters(cycle, 5, seed=0, ipc_index=n)[0] for n in range(12)]
    assert chosen[:4] == [(0, 1), (0, 2), (0, 3), (0, 4)]
    assert chosen[9:] == [(3, 4), (0, 1), (0, 2)]


def test_a_random_pair_depends_on_the_seed_and_the_index_only() -> None:
    random = CommitteeConfig(voters=2)
    chosen = [voters(random, 5, seed=0, ipc_index=n)[0] for n in range(200)]
    assert chosen == [voters(random, 5, seed=0, ipc_index=n)[0] for n in range(200)]
    assert chosen != [voters(random, 5, seed=1, ipc_index=n)[0] for n in range(200)]
    assert len(set(chosen)) == 10


def test_a_step_of_a_committee_follows_the_weighted_sum_of_the_gradients() -> None:
    start = torch.randn(4, 3, SIDE, SIDE)
    view = sample_view(np.random.default_rng(0), count=4, side=SIDE, scale=None, flip=False)

    def moved(one: Goal) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = start.clone().requires_grad_()
        grid = sampling_grid(view, out=SIDE, like=leaf)
        part = Part([leaf], one, torch.optim.SGD([leaf], lr=1e-3), grid)
        (values,) = recover_step([part])
        return leaf.detach(), values

    inside = torch.clamp(start, goal(0).space.low, goal(0).space.high) == start
    parts = [moved(goal(n)) for n in (0, 2)]
    made, values = moved(joint_goal([goal(0), goal(2)], (0.7, 0.3)))
    expected = start + sum(w * (p - start) for w, (p, _) in zip((0.7, 0.3), parts, strict=True))
    torch.testing.assert_close(made[inside], expected[inside], atol=1e-6, rtol=0)
    torch.testing.assert_close(values, 0.7 * parts[0][1] + 0.3 * parts[1][1])


def test_a_committee_differs_from_alternating_teachers_and_one_prior_can_dominate() -> None:
    all_three = "recover.committee={}"
    made = recover(all_three)
    assert not np.array_equal(made, recover())
    assert np.array_equal(made, recover(all_three))
    heavy = "recover.committee={weighting: {priors: [5000, 0, 0], temperature: 1}}"
    assert np.abs(recover(heavy).astype(int) - recover(teachers=(0,))).max() <= 1


def test_each_index_has_voters_of_its_own() -> None:
    pair = "recover.committee={voters: 2, choice: cycle}"
    for index, expected in enumerate([(0, 1), (0, 2), (1, 2)]):
        batch = tiny_batch(index)
        alone = recover("recover.committee={}", teachers=expected, batch=batch)
        assert np.array_equal(recover(pair, batch=batch), alone)


def test_batches_share_a_launch_only_with_the_same_voters_and_keep_their_bytes() -> None:
    pair = config(TEACH, "recover.committee={voters: 2, choice: cycle}")
    batches = [tiny_batch(0), tiny_batch(0), tiny_batch(1)]
    assert launches(batches, pair, groups=4) == ((0, 1), (2,))
    everyone = config(TEACH, "recover.committee={}")
    assert launches(batches, everyone, groups=4) == ((0, 1, 2),)
    together = recover_together(
        batches[1:], RecoverySetup(everyone, TEACHERS, seed=0), starts=[None] * 2
    )
    for made, batch in zip(together, batches[1:], strict=True):
        assert np.array_equal(made.pixels, recover("recover.committee={}", batch=batch))


def test_voters_that_change_with_the_index_need_batches_of_one_index() -> None:
    with pytest.raises(ConfigError, match="set composition = one_per_class"):
        config(TEACH, "recover.committee={voters: 2}", "recover.composition=class_major")
    everyone = config(TEACH, "recover.committee={}", "recover.composition=class_major")
    assert (everyone.passes, config(TEACH).passes) == (3, 1)
