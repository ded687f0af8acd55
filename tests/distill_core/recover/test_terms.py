from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch

from distill_core.config.terms import TermName
from distill_core.errors import ConfigError
from distill_core.models.batch_norms import LayerStatistics
from distill_core.models.teacher import TeacherOutput
from distill_core.recover.terms import (
    TERMS,
    Forward,
    bn_statistics,
    build_objective,
)
from distill_core.recover.terms.statistics import class_bn_statistics, relative_bn_statistics
from tests.support.tiny import tiny_recover, tiny_teacher


def forward_of(statistics: tuple[LayerStatistics, ...], factor: float) -> Forward:
    output = TeacherOutput(torch.zeros(1, 2), torch.zeros(1, 2), statistics)
    config = tiny_recover(f"recover.first_layer_factor={factor}")
    return Forward(torch.zeros(1, 3, 2, 2), torch.zeros(1, dtype=torch.int64), output, config)


def layer(mean: list[float], var: list[float]) -> LayerStatistics:
    """Return batch statistics of a layer, with running statistics of mean 0 and variance 1."""
    zeros = torch.zeros(len(mean))
    return LayerStatistics(torch.tensor(mean), torch.tensor(var), zeros, torch.ones(len(mean)))


def test_bn_statistics_equals_a_value_computed_by_hand() -> None:
    # First layer: ||(3, 4)|| = 5 and ||(1, 1) - (1, 3)|| = 2, ten times; second: 1 and 0.
    statistics = (layer([3.0, 4.0], [1.0, 3.0]), layer([0.0, 1.0], [1.0, 1.0]))
    assert bn_statistics(forward_of(statistics, 10.0)).item() == pytest.approx(10 * 7 + 1)
    assert bn_statistics(forward_of(statistics, 1.0)).item() == pytest.approx(7 + 1)


def test_relative_bn_statistics_equals_a_value_computed_by_hand() -> None:
    # Two channels of variance 1: ||std|| = ||var|| = sqrt(2). Gaps as above, over two layers.
    statistics = (layer([3.0, 4.0], [1.0, 3.0]), layer([0.0, 1.0], [1.0, 1.0]))
    expected = (10 * 7 + 1) / 2**0.5 / 2
    assert relative_bn_statistics(forward_of(statistics, 10.0)).item() == pytest.approx(expected)
    half = forward_of(statistics, 1.0)
    half = replace(half, config=half.config.model_copy(update={"variance_factor": 0.5}))
    assert relative_bn_statistics(half).item() == pytest.approx((5 + 1 + 1) / 2**0.5 / 2)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_relative_bn_statistics_do_not_depend_on_the_scale_of_the_activations(scale: float) -> None:
    output = tiny_teacher()(torch.randn(4, 3, 16, 16), statistics=True)
    scaled = tuple(
        LayerStatistics(
            scale * s.mean, scale**2 * s.var, scale * s.running_mean, scale**2 * s.running_var
        )
        for s in output.statistics
    )
    plain = relative_bn_statistics(forward_of(output.statistics, 10.0)).item()
    assert relative_bn_statistics(forward_of(scaled, 10.0)).item() == pytest.approx(plain, rel=1e-4)
    if scale != 1.0:
        published = bn_statistics(forward_of(output.statistics, 10.0)).item()
        assert bn_statistics(forward_of(scaled, 10.0)).item() != pytest.approx(published, rel=0.1)


def test_bn_statistics_of_a_real_forward_equals_biased_batch_statistics() -> None:
    teacher = tiny_teacher("float64")
    x = torch.randn(5, 3, 16, 16, dtype=torch.float64)
    output = teacher(x, statistics=True)
    first = output.statistics[0]
    conv = next(m for m in teacher.backbone.modules() if isinstance(m, torch.nn.Conv2d))
    seen = conv(x)
    torch.testing.assert_close(first.mean, seen.mean((0, 2, 3)))
    torch.testing.assert_close(first.var, seen.var((0, 2, 3), unbiased=False))


def test_class_statistics_replace_the_running_ones() -> None:
    # ||(3, 4) - (3, 3)|| = 1 and ||(1, 1) - (1, 4)|| = 3, twice for the first layer.
    statistics = (layer([3.0, 4.0], [1.0, 1.0]),)
    moments = ((torch.tensor([3.0, 3.0]), torch.tensor([1.0, 4.0])),)
    forward = replace(forward_of(statistics, 2.0), moments={"class_bn_statistics": moments})
    assert class_bn_statistics(forward).item() == pytest.approx(2 * 4)


def test_an_unknown_term_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'tvv'.*cross_entropy, density"):
        build_objective({"tvv": 1.0})


def test_the_schema_and_the_table_list_the_same_terms() -> None:
    assert set(get_args(TermName)) == set(TERMS)


def test_a_zero_weight_drops_the_term() -> None:
    assert list(build_objective({"cross_entropy": 1.0, "bn_statistics": 0.0})) == ["cross_entropy"]


def test_the_order_of_terms_in_a_config_does_not_decide_the_order_of_their_sum() -> None:
    """Keys do not contain it, and a sum of three floats depends on it."""
    weights = {"cross_entropy": 1.0, "start_distance": 2.0, "adversarial": 3.0}
    reverse = dict(reversed(weights.items()))
    assert list(build_objective(reverse).items()) == list(build_objective(weights).items())
