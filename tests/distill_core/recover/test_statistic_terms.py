"""Terms that compare with real images: their values, their draws, and their inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from distill_core.config.terms import OriginalsConfig
from distill_core.errors import ConfigError
from distill_core.models.batch_norms import LayerStatistics
from distill_core.models.convolutions import Probe, Probed
from distill_core.models.teacher import FrozenTeacher, TeacherOutput
from distill_core.recover.batch import RecoveredBatch
from distill_core.recover.goals import skipped_convolutions
from distill_core.recover.optimise import recover_batch
from distill_core.recover.setup import RecoverySetup
from distill_core.recover.statistics_average import StatisticsAverage
from distill_core.recover.terms import Forward
from distill_core.recover.terms.features import feature_barycentre, feature_originals
from distill_core.recover.terms.statistics import conv_statistics
from distill_core.selection.mosaic import rank_crops, stitch, tiles_of
from distill_core.statistics.measure import describe_originals
from distill_core.transforms.pixel_space import PixelSpace
from tests.support.term_bench import CONVOLUTIONS, batch, config_of, expected, noise, teacher_of
from tests.support.tiny import SIDE, tiny_recover, tiny_teacher

CONFIG = config_of("conv_statistics")  # the first convolution counts ten times
STILL = {"crop": None, "flip": False, "shared_view": True}


def forward(said_features: torch.Tensor, probed: Probed, **more: object) -> Forward:
    said = TeacherOutput(said_features, torch.zeros(1, 2), (), probed)
    return Forward(torch.zeros(1, 3, 2, 2), torch.zeros(1).long(), said, CONFIG, **more)  # type: ignore[arg-type]


def test_the_gap_of_convolutions_equals_a_value_computed_by_hand() -> None:
    # First: ||(3, 4)|| = 5 and ||(0, 2)|| = 2, ten times; third: 1 and 0; the second was left out.
    def layer(mean: list[float], var: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(mean), torch.tensor(var)

    seen = {0: layer([3.0, 4.0], [1.0, 3.0]), 2: layer([0.0, 1.0], [1.0, 1.0])}
    real = (layer([0.0, 0.0], [1.0, 1.0]),) * 3
    given = forward(
        torch.zeros(1, 2),
        Probed(channels=seen),
        moments={"conv_statistics": real},
    )
    assert conv_statistics(given).item() == pytest.approx(10 * 7 + 1)
    halved = replace(given, config=CONFIG.model_copy(update={"variance_factor": 0.5}))
    assert conv_statistics(halved).item() == pytest.approx(10 * 6 + 1)


def test_where_every_convolution_is_left_out_the_gap_is_zero() -> None:
    given = forward(torch.zeros(1, 2), Probed(), moments={"conv_statistics": ()})
    assert conv_statistics(given).item() == 0.0


def test_feature_terms_equal_values_computed_by_hand() -> None:
    features = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    wanted = torch.zeros(2, 2)
    given = forward(
        features,
        Probed(features=features),
        features={"feature_barycentre": wanted, "feature_originals": wanted},
    )
    assert feature_barycentre(given).item() == pytest.approx(5.0)
    assert feature_originals(given).item() == pytest.approx(1.5 + 2.0)


def recovered(*terms: str, steps: int = 40, **changes: object) -> RecoveredBatch:
    config = config_of(*terms).model_copy(update={"steps": steps, **STILL, **changes})
    setup, real = RecoverySetup(config, [teacher_of()], seed=0), [expected(batch(), config)]
    return recover_batch(batch(), setup, start=noise(5, 2), real=real)


@pytest.mark.parametrize(
    "term",
    [
        "conv_statistics",
        "class_conv_statistics",
        "patch_statistics",
        "class_patch_statistics",
        "feature_barycentre",
        "feature_originals",
    ],
)
def test_recovery_lowers_each_term(term: str) -> None:
    settings = config_of(term).convolutions
    still = None if settings is None else settings.model_copy(update={"drop_rate": 0.0})
    trace = recovered(term, convolutions=still).trace
    assert trace[-1][term] < 0.7 * trace[0][term]


def test_convolutions_are_dropped_at_the_given_rate_by_a_new_draw_in_each_step() -> None:
    config = config_of("conv_statistics")

    def draws(seed: int) -> list[frozenset[int]]:
        return [skipped_convolutions(50, config, batch(), seed=seed, step=n) for n in range(40)]

    assert draws(0) == draws(0) != draws(1)
    assert len(set(draws(0))) > 30
    assert sum(map(len, draws(0))) / (50 * 40) == pytest.approx(0.4, abs=0.05)


def test_a_drop_rate_near_one_makes_the_term_of_a_step_zero() -> None:
    whole = recovered("conv_statistics", steps=1, convolutions=None).trace[0]
    config = config_of("conv_statistics")
    assert config.convolutions is not None
    never = config.convolutions.model_copy(update={"drop_rate": 0.999999})
    assert whole["conv_statistics"] > 0
    assert recovered("conv_statistics", steps=1, convolutions=never).trace[0]["total"] == 0.0


def said_of(value: torch.Tensor) -> TeacherOutput:
    """Return a teacher that saw one number everywhere."""
    norm = LayerStatistics(value, value, torch.zeros(1), torch.ones(1))
    probed = Probed(channels={1: (value, value)}, patches={1: (value, value)})
    return TeacherOutput(torch.zeros(1, 1), torch.zeros(1, 1), (norm,), probed)


def moments_of(said: TeacherOutput) -> list[torch.Tensor]:
    inputs = said.convolutions
    return [
        *(said.statistics[0].mean, said.statistics[0].var),
        *inputs.channels[1],
        *inputs.patches[1],
    ]


def test_averaged_statistics_have_the_gradient_of_the_step_alone() -> None:
    memory, now = StatisticsAverage(0.75), torch.tensor([8.0], requires_grad=True)
    first = memory.update(said_of(torch.tensor([4.0])), "teacher")
    assert [moment.item() for moment in moments_of(first)] == [4.0] * 6
    for moment in moments_of(memory.update(said_of(now), "teacher")):
        assert moment.item() == pytest.approx(0.75 * 4 + 0.25 * 8)
        (gradient,) = torch.autograd.grad(moment, now)
        assert gradient.item() == 1.0
    assert moments_of(memory.update(said_of(now), "another"))[0].item() == 8.0


def test_statistic_averages_start_anew_with_each_batch() -> None:
    plain = recovered("bn_statistics", steps=3).trace
    averaged = recovered("bn_statistics", steps=3, statistics_decay=0.8).trace
    again = recovered("bn_statistics", steps=3, statistics_decay=0.8).trace
    assert plain[0] == averaged[0]
    assert plain[1] != averaged[1]
    assert averaged == again


def test_tiles_are_cut_row_by_row_and_resized_to_the_image_side() -> None:
    quarter = torch.arange(4.0).view(2, 2).repeat_interleave(2, 0).repeat_interleave(2, 1)
    images = torch.stack([quarter, quarter + 4]).unsqueeze(1).expand(2, 3, 4, 4)
    cut = tiles_of(images.contiguous(), 2)
    assert cut.shape == (8, 3, 4, 4)
    assert torch.equal(cut, torch.arange(8.0).view(8, 1, 1, 1).expand_as(cut))


def test_the_tiles_of_a_mosaic_lie_nearer_to_their_own_originals_than_to_others() -> None:
    mosaic = config_of("feature_originals").mosaic
    assert mosaic is not None
    teacher, pixels = tiny_teacher(), noise(6, 7)
    chosen = {"config": mosaic, "teacher": teacher, "seed": 0}
    found = rank_crops(pixels, 1, "class_1", **chosen)  # type: ignore[arg-type]
    crops, ranked = found.crops, pixels[found.order]
    originals = describe_originals(
        ranked, teacher, OriginalsConfig(images=2, layer=1, grid=4), count=8
    )
    space = PixelSpace.of(teacher.spec.mean, teacher.spec.std, teacher.head.weight)
    mosaics = np.stack([stitch(crops, index, factor=2) for index in range(2)])
    seen = teacher(
        tiles_of(space.normalise(torch.from_numpy(mosaics)), 2), probe=Probe(layer=1, grid=4)
    ).convolutions.features
    assert seen is not None
    away = torch.cdist(seen, torch.from_numpy(originals)).numpy()
    np.testing.assert_array_equal(away.argmin(axis=1) % 6, np.arange(8) % 6)


def without_batch_norm() -> FrozenTeacher:
    """Return a teacher like those of AlexNet's kind."""
    teacher = tiny_teacher(seed=1)
    for name, module in list(teacher.backbone.named_modules()):
        if type(module).__name__ == "StatisticsBatchNorm":
            teacher.backbone.set_submodule(name, nn.Identity())
    teacher.num_statistics = 0
    return teacher


def test_a_pool_may_have_teachers_without_batch_norm_but_not_only_such() -> None:
    config = tiny_recover(
        "recover.terms={cross_entropy: 1.0, bn_statistics: 1.0}",
        "squeeze.pool=[{model: {name: convnet3, width: 8}}]",
        "recover.teachers=[0, 1]",
    )
    teachers = [tiny_teacher(), without_batch_norm()]
    made = recover_batch(batch(), RecoverySetup(config, teachers, seed=0))
    assert made.trace[0]["bn_statistics"] > 0
    assert made.trace[1]["bn_statistics"] == 0
    with pytest.raises(ConfigError, match="no batch norm layer, bn_statistics needs one"):
        RecoverySetup(config, teachers[1:], seed=0)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("recover.terms={conv_statistics: 1}",), "convolutions is required with the term"),
        (CONVOLUTIONS, "convolutions is required with the term"),
        (("recover.terms={feature_barycentre: 1}",), "barycentre is required with the term"),
        (
            ("recover.terms={feature_originals: 1}", "recover.originals={images: 10, layer: 1}"),
            "feature_originals needs tiles that are whole images",
        ),
        (
            (
                "recover.terms={patch_statistics: 1}",
                *CONVOLUTIONS,
                "recover.steps=20",
                "recover.segments=[{steps: 10, side: 8}, {steps: 10}]",
            ),
            "compares patches at data.side",
        ),
        (
            (
                "ipc=3",
                "recover.terms={feature_originals: 1}",
                "recover.init=mosaic",
                "recover.mosaic={crops: 1, factor: 2, scale: [1, 1]}",
                "recover.originals={images: 2, layer: 1}",
            ),
            "recover.originals.images = 2 must be at least ipc = 3",
        ),
    ],
)
def test_a_missing_input_of_a_term_is_named(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tiny_recover(*overrides)


def test_the_measured_statistics_are_those_of_the_active_terms() -> None:
    assert SIDE % 2 == 0
    both = config_of("conv_statistics", "class_patch_statistics", class_bn_statistics=0.0)
    assert both.measured == {"channels", "patches"}
    assert both.needs_every_class
    assert not config_of("class_conv_statistics").needs_every_class
    assert not both.model_copy(update={"steps": 0}).measured
