"""Convolutions that measure their inputs, compared with torch, autograd and finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from distill_core.errors import ConfigError
from distill_core.models.convolutions import Probe, measure_convolutions
from distill_core.models.moments import MeanVar, channel_moments, moments, patch_moments

FORMATS = (torch.contiguous_format, torch.channels_last)


def activations(height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return (2, 3, height, width) activations whose channels lie apart."""
    draws = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 3, height, width, generator=draws, dtype=dtype)
    return noise + 5 * torch.arange(3).view(1, 3, 1, 1)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1, groups=2))


@pytest.mark.parametrize("layout", FORMATS)
def test_channel_moments_equal_those_of_autograd(layout: torch.memory_format) -> None:
    x = activations(5, 6).contiguous(memory_format=layout).requires_grad_()
    ours = channel_moments(x)
    theirs = (x.mean((0, 2, 3))[None], x.var((0, 2, 3), unbiased=False)[None])
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
    (a,), (b,) = (torch.autograd.grad((m.sin() + v**2).sum(), x) for m, v in (ours, theirs))
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("side", [16, 4])
@pytest.mark.parametrize(("height", "width"), [(32, 16), (20, 33), (12, 9), (8, 5), (2, 1), (1, 1)])
def test_patch_moments_equal_blocks_cut_out_by_hand(
    height: int, width: int, side: int, layout: torch.memory_format
) -> None:
    x = activations(height, width).contiguous(memory_format=layout).requires_grad_()
    rows, columns = -(-height // side), -(-width // side)
    big = nn.functional.interpolate(x, (side * rows, side * columns), mode="bilinear")
    blocks = [
        big[:, :, side * u : side * u + side, side * v : side * v + side]
        for u in range(rows)
        for v in range(columns)
    ]
    (mean,), (var,) = patch_moments(x, side=side)
    mean_ = torch.stack([block.mean() for block in blocks])
    var_ = torch.stack([block.var(unbiased=False) for block in blocks])
    torch.testing.assert_close(mean, mean_)
    torch.testing.assert_close(var, var_)
    (a,), (b,) = (
        torch.autograd.grad((m.sin() + v.cos()).sum(), x) for m, v in ((mean, var), (mean_, var_))
    )
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_the_hand_written_gradient_passes_gradcheck() -> None:
    x = activations(3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: moments(x, (1, 3)), (x,))
    assert torch.autograd.gradcheck(patch_moments, (x,))  # a small map
    assert torch.autograd.gradcheck(patch_moments, (activations(9, 2).requires_grad_(),))


def test_moments_of_bfloat16_are_float32_and_exact() -> None:
    x = activations(16, 16).bfloat16().requires_grad_()
    (mean,), (var,) = channel_moments(x)
    exact = x.detach().double()
    assert mean.dtype == var.dtype == torch.float32
    torch.testing.assert_close(mean.double(), exact.mean((0, 2, 3)), rtol=1e-6, atol=1e-6)
    var_ = exact.var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(var.double(), var_, rtol=1e-5, atol=0)
    (mean.sum() + var.sum()).backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16


def test_replaced_convolutions_compute_what_they_did_and_keep_their_names() -> None:
    model, x = network().double(), activations(8, 8)
    expected, names = model(x), [name for name, _ in model.named_parameters()]
    tape, count = measure_convolutions(model)
    assert count == 2
    assert [name for name, _ in model.named_parameters()] == names
    assert torch.equal(model(x), expected)
    with tape.measure(Probe(channels=True, patches=True), [len(x)]):
        assert torch.equal(model(x), expected)
    (seen,) = tape.take()
    torch.testing.assert_close(seen.channels[0][0], x.mean((0, 2, 3)))
    assert list(seen.channels) == list(seen.patches) == [0, 1]


def test_convolutions_are_measured_only_on_request_and_never_where_skipped() -> None:
    model, x = network().double(), activations(8, 8)
    tape, _ = measure_convolutions(model)
    model(x)
    assert tape.take() == ()
    with tape.measure(Probe(channels=True, layer=0, grid=2), [len(x)], skipped=[frozenset({0})]):
        model(x)
    (seen,) = tape.take()
    assert list(seen.channels) == [1]
    assert not seen.patches
    assert seen.features is not None
    assert seen.features.shape == (2, 3 * 4)


@pytest.mark.parametrize("sides", [(20, 33), (16, 16), (8, 8), (4, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("measure", [channel_moments, patch_moments])
def test_groups_are_measured_as_if_each_were_alone(
    measure: Callable[..., MeanVar], dtype: torch.dtype, sides: tuple[int, int]
) -> None:
    x = torch.cat([activations(*sides, torch.float32) + n for n in range(3)]).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    mean, var = measure(x, 3)
    for number, part in enumerate(x.split(2)):
        (mean_,), (var_,) = measure(part)
        assert torch.equal(mean[number], mean_)
        assert torch.equal(var[number], var_)


def test_each_group_leaves_out_the_convolutions_of_its_own_draw() -> None:
    model, x = network().double(), activations(8, 8)
    tape, _ = measure_convolutions(model)
    draws = [frozenset({0}), frozenset({1})]
    with tape.measure(Probe(channels=True), [len(x) // 2] * 2, skipped=draws):
        model(x)
    one, other = tape.take()
    assert (list(one.channels), list(other.channels)) == ([1], [0])
    torch.testing.assert_close(other.channels[0][0], x[1].mean((1, 2)))


class Padded(nn.Conv2d):
    """Pads in its own forward, as convolutions that follow TensorFlow do."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of the padded input."""
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


class Standardised(nn.Conv2d):
    """Computes with other weights than it stores."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean(), bias)


class Named(nn.Conv2d):
    """Computes what a plain convolution computes."""


@pytest.mark.parametrize("kind", [Padded, Standardised])
def test_a_subclass_that_computes_something_else_is_refused_by_name(kind: type[nn.Conv2d]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(kind(3, 4, 3)))
    with pytest.raises(ConfigError, match=rf"layer '1\.0': a .*\.{kind.__name__}, which computes"):
        measure_convolutions(model)
    assert type(model[0]) is nn.Conv2d  # nothing was replaced


def test_weights_that_are_computed_from_others_are_refused() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1)))
    with pytest.raises(ConfigError, match=r"layer '0': .*Conv2d, which computes"):
        measure_convolutions(model)


def test_a_subclass_with_the_computation_of_a_plain_convolution_is_measured() -> None:
    model, x = nn.Sequential(Named(3, 4, 3)), torch.randn(2, 3, 5, 5)
    expected = model(x)
    assert measure_convolutions(model)[1] == 1
    assert torch.equal(model(x), expected)
