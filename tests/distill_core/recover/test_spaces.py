"""Starts, learning rates and weights where teachers differ in normalisation and in scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from distill_core.config.load import to_yaml
from distill_core.config.recovery import RecoverConfig
from distill_core.errors import ConfigError
from distill_core.models.teacher import FrozenTeacher
from distill_core.recover.batch import BatchRecovery, RecoveredBatch
from distill_core.recover.goals import goal_of
from distill_core.recover.optimise import recover_batch
from distill_core.recover.setup import RecoverySetup
from distill_core.storage.statistics_files import Expected
from distill_core.transforms.pixel_space import PixelSpace
from tests.support.tiny import MEAN, SIDE, tiny_batch, tiny_recover, tiny_run, tiny_teacher

WIDE = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
POOL = "squeeze.pool=[{model: {name: convnet3}}]"
BOTH = (POOL, "recover.teachers=[0, 1]")
STILL = ("recover.crop=null", "recover.flip=false", "recover.roll={mode: off}")


def recover(
    *overrides: str, teachers: tuple[FrozenTeacher, ...] = (), steps: int = 6, **more: Any
) -> RecoveredBatch:
    config = tiny_run(*overrides, f"recover.steps={steps}").recover
    setup = RecoverySetup(config, teachers or (tiny_teacher(),), seed=0)
    return recover_batch(tiny_batch(), setup, **more)


def start_of(*overrides: str, teacher: FrozenTeacher | None = None) -> np.ndarray:
    """Return the pixels in [0, 1] of a start, not clamped."""
    setup = RecoverySetup(tiny_recover(*overrides), [teacher or tiny_teacher()], seed=0)
    recovery = BatchRecovery(tiny_batch(), setup)
    images = recovery.start_images(None)
    return (images * recovery.space.std + recovery.space.mean).numpy()


def folded(teacher: FrozenTeacher, images: PixelSpace, to: PixelSpace) -> FrozenTeacher:
    """Return a teacher with another normalisation stated, that computes what it did before."""
    teacher.backbone.register_forward_pre_hook(
        lambda _module, inputs: (images.converted(inputs[0], to),)
    )
    return teacher


def test_a_start_has_the_deviation_of_the_normalisation_unless_one_is_set() -> None:
    plain, narrow = start_of(), start_of("recover.start_std=0.5")
    mean = np.array(MEAN, np.float32)[:, None, None]
    np.testing.assert_allclose(narrow - mean, (plain - mean) / 2, atol=1e-6)
    assert plain.std() == pytest.approx(0.26, abs=0.02)  # 0.25, and the three means


def test_a_start_in_pixels_does_not_depend_on_the_deviation_of_the_normalisation() -> None:
    settings = ("recover.space=pixel", "recover.start_std=0.2")
    one, two = (start_of(*settings, teacher=tiny_teacher(std=(s,) * 3)) for s in (0.25, 0.5))
    assert np.array_equal(one, two)
    plain = start_of()
    np.testing.assert_allclose(start_of("recover.space=pixel"), plain, atol=1e-6)


def test_a_learning_rate_in_pixels_moves_pixels_alike_under_every_normalisation() -> None:
    """The teacher of mean and std 0.5 is the other one, told of its input in other units."""
    narrow = tiny_teacher(mean=(0.5,) * 3, std=(0.25,) * 3)
    spaces = [PixelSpace.of((0.5,) * 3, (s,) * 3, torch.empty(0)) for s in (0.5, 0.25)]
    wide = folded(tiny_teacher(**WIDE), *spaces)
    settings = ("recover.space=pixel", "recover.lr=0.02", "recover.start_std=0.2", *STILL)
    one, two = (recover(*settings, teachers=(t,)).pixels.astype(int) for t in (narrow, wide))
    assert np.abs(one - two).max() <= 1
    settings = ("recover.lr=0.1", *STILL)  # in normalised units, a step is twice as long under 0.5
    one, two = (recover(*settings, teachers=(t,)).pixels.astype(int) for t in (narrow, wide))
    assert np.abs(one - two).max() > 10


def test_a_second_teacher_sees_the_images_in_its_own_normalisation() -> None:
    first, second = tiny_teacher(), tiny_teacher(seed=1, **WIDE)
    setup = RecoverySetup(tiny_run(*BOTH).recover, [first, second], seed=0)
    assert setup.input_of(first) is None
    start = BatchRecovery(tiny_batch(), setup).start_images(None).clamp(-1, 1)
    pixels = start * setup.space.std + setup.space.mean
    goal = goal_of(tiny_batch(), 1, setup, Expected())
    torch.testing.assert_close(goal.seen(start), (pixels - 0.5) / 0.5)
    together = recover(*BOTH, teachers=(first, second), steps=2)
    own = PixelSpace.of(MEAN, (0.25,) * 3, torch.empty(0))
    wrong = tiny_teacher(seed=1, mean=MEAN)
    right = folded(tiny_teacher(seed=1, mean=MEAN), own, PixelSpace.of(**WIDE, like=torch.empty(0)))
    assert not np.array_equal(
        together.pixels, recover(*BOTH, teachers=(first, wrong), steps=2).pixels
    )
    same = recover(*BOTH, teachers=(first, right), steps=2).pixels.astype(int)
    assert np.abs(together.pixels.astype(int) - same).max() <= 1


@pytest.mark.parametrize("space", ["teacher", "pixel"])
def test_real_starts_are_the_same_images_in_every_space(space: str) -> None:
    real = np.arange(4 * 3 * SIDE * SIDE, dtype=np.int64).reshape(4, 3, SIDE, SIDE) * 7 % 256
    made = recover(f"recover.space={space}", "recover.init=real", steps=0, start=real.astype("u1"))
    assert np.array_equal(made.pixels, real)
    plain = recover("recover.init=real", steps=0, start=real.astype("u1"))
    np.testing.assert_allclose(made.losses["cross_entropy"], plain.losses["cross_entropy"])


def weights_of(config: RecoverConfig, place: int) -> dict[str, float]:
    setup = RecoverySetup(config, [tiny_teacher(), tiny_teacher(seed=1)], seed=0)
    goal = goal_of(tiny_batch(), place, setup, Expected())
    return {name: weight for name, (weight, _) in goal.objective.items()}


def test_a_teacher_may_have_weights_of_its_own() -> None:
    own = "recover.teacher_terms=[{bn_statistics: 0.001}, {}]"
    terms = "recover.terms={cross_entropy: 1.0, bn_statistics: 0.01}"
    config = tiny_run(*BOTH, terms, own).recover
    assert weights_of(config, 0) == {"cross_entropy": 1.0, "bn_statistics": 0.001}
    assert weights_of(config, 1) == {"cross_entropy": 1.0, "bn_statistics": 0.01}
    pair = (tiny_teacher(), tiny_teacher(seed=1))
    same = recover(*BOTH, terms, "recover.teacher_terms=[{}, {}]", teachers=pair)
    assert np.array_equal(same.pixels, recover(*BOTH, terms, teachers=pair).pixels)


def test_a_committee_weighs_each_value_by_its_teacher() -> None:
    own = "recover.teacher_terms=[{bn_statistics: 2.0}, {}]"
    terms = "recover.terms={cross_entropy: 1.0, bn_statistics: 0.5}"
    pair = (tiny_teacher(), tiny_teacher(seed=1))
    made = recover(*BOTH, terms, own, "recover.committee={}", teachers=pair, steps=1)
    alone = [recover(terms, teachers=(t,), steps=1).trace[0] for t in pair]
    ce, bn = ([t[name] for t in alone] for name in ("cross_entropy", "bn_statistics"))
    total = 0.5 * (ce[0] + 2.0 * bn[0]) + 0.5 * (ce[1] + 0.5 * bn[1])
    assert made.trace[0]["total"] == pytest.approx(total, rel=1e-5)
    assert made.trace[0]["bn_statistics"] == pytest.approx(sum(bn) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ("[{bn_statistics: 0.1}]", "teacher_terms has 1 entries, expected 2, one per teacher"),
        ("[{density: 0.1}, {}]", "teacher_terms sets density, which terms does not have"),
        ("[{bn_statistics: 0}, {}]", "greater than 0"),
    ],
)
def test_weights_that_do_not_fit_are_refused(own: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tiny_run(*BOTH, f"recover.teacher_terms={own}")


def test_at_their_defaults_the_new_settings_are_not_in_the_tree() -> None:
    fields = ("space", "start_std", "teacher_terms")
    assert not any(f"{field}:" in to_yaml(tiny_run()) for field in fields)
    changed = tiny_run("recover.space=pixel", "recover.start_std=0.2", "recover.teacher_terms=[{}]")
    assert all(f"{field}:" in to_yaml(changed) for field in fields)
    assert RecoverConfig.model_validate(changed.recover.model_dump(mode="json")) == changed.recover
