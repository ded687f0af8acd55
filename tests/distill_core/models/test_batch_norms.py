"""Batch norm that measures its input, compared with torch, autograd and finite differences."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from distill_core.models.batch_norms import (
    StatisticsBatchNorm,
    StatisticsTape,
    measure_batch_norms,
    normalise_and_measure,
)

FORMATS = (torch.contiguous_format, torch.channels_last)


def norm(channels: int, dtype: torch.dtype = torch.float64) -> nn.BatchNorm2d:
    """Return a frozen batch norm with nothing at its default."""
    draws, layer = torch.Generator().manual_seed(1), nn.BatchNorm2d(channels, eps=1e-3, dtype=dtype)
    for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
        assert tensor is not None
        tensor.data.uniform_(0.5, 1.5, generator=draws)
    return layer.eval().requires_grad_(False)


def images(dtype: torch.dtype = torch.float64) -> Tensor:
    """Return (4, 3, 5, 6) activations whose channels lie apart."""
    draws = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, 5, 6, generator=draws, dtype=dtype) + torch.arange(3).view(1, 3, 1, 1)


def measured(layer: nn.BatchNorm2d) -> StatisticsBatchNorm:
    return StatisticsBatchNorm(layer, number=0, tape=StatisticsTape())


def loss_of(y: Tensor, mean: Tensor, var: Tensor, layer: nn.BatchNorm2d) -> Tensor:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    gap = torch.linalg.norm(mean - layer.running_mean) + torch.linalg.norm(var - layer.running_var)
    return torch.add(y.sin().sum(), gap)


@pytest.mark.parametrize("layout", FORMATS)
def test_output_statistics_and_gradient_equal_those_of_autograd(
    layout: torch.memory_format,
) -> None:
    layer, x = norm(3), images().contiguous(memory_format=layout).requires_grad_()
    module = measured(layer)
    with module.tape.record([len(x)]):
        y = module(x)
    ((seen,),) = module.tape.take()
    (ours,) = torch.autograd.grad(loss_of(y, seen.mean, seen.var, layer), x)
    expected = layer(x)
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    (theirs,) = torch.autograd.grad(loss_of(expected, mean, var, layer), x)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(seen.mean, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(seen.var, var, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_hand_written_gradient_passes_gradcheck() -> None:
    layer, x = norm(3), images()[:2, :, :3, :2].requires_grad_()

    def forward(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert layer.running_mean is not None
        return normalise_and_measure(x, layer.running_mean, layer.weight, layer.bias)

    assert torch.autograd.gradcheck(forward, (x,))


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("recording", [False, True])
def test_the_memory_format_and_dtype_of_the_input_are_kept(
    layout: torch.memory_format, recording: bool
) -> None:
    module, x = measured(norm(3, torch.float32)), images(torch.float32)
    x = x.to(torch.bfloat16, memory_format=layout).requires_grad_()
    with module.tape.record([len(x)]) if recording else nullcontext():
        y = module(x)
    y.sum().backward()
    assert x.grad is not None
    assert (y.dtype, x.grad.dtype) == (torch.bfloat16, torch.bfloat16)
    assert y.is_contiguous(memory_format=layout)
    assert x.grad.is_contiguous(memory_format=layout)


def test_statistics_of_bfloat16_activations_are_float32() -> None:
    module, x = measured(norm(3, torch.float32)), images(torch.float32).bfloat16().requires_grad_()
    with module.tape.record([len(x)]):
        module(x)
    ((seen,),) = module.tape.take()
    exact = x.detach().double()
    assert seen.mean.dtype == seen.var.dtype == torch.float32
    torch.testing.assert_close(seen.mean.double(), exact.mean((0, 2, 3)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        seen.var.double(), exact.var((0, 2, 3), unbiased=False), rtol=1e-5, atol=1e-6
    )
    (grad,) = torch.autograd.grad(seen.mean.sum() + seen.var.sum(), x)
    expected = (1 + 2 * (exact - exact.mean((0, 2, 3), keepdim=True))) / 120
    torch.testing.assert_close(grad.double(), expected, rtol=2e-2, atol=1e-4)


def test_a_variance_is_exact_beside_a_large_mean_where_plain_sums_fail() -> None:
    layer = norm(3, torch.float32)
    assert layer.running_mean is not None
    layer.running_mean += 1000
    x = (images() + 1000).float()
    module = measured(layer)
    with module.tape.record([len(x)]):
        module(x)
    exact = x.double().var((0, 2, 3), unbiased=False)
    ((seen,),) = module.tape.take()
    torch.testing.assert_close(seen.var.double(), exact, rtol=1e-4, atol=1e-5)
    plain = (x * x).mean((0, 2, 3)) - x.mean((0, 2, 3)) ** 2
    assert float((plain.double() - exact).abs().max()) > 1e-2


def test_a_layer_without_weights_is_measured_too() -> None:
    layer, x = nn.BatchNorm2d(3, affine=False).eval(), images(torch.float32)
    module = measured(layer)
    with module.tape.record([len(x)]):
        torch.testing.assert_close(module(x), layer(x))


def test_only_batch_norms_of_images_are_replaced_and_numbered_in_registration_order() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(2), nn.BatchNorm1d(3)).eval()
    model.add_module("late", nn.Sequential(nn.Unflatten(2, (5, 6)), nn.BatchNorm2d(3)))
    tape, count = measure_batch_norms(model)
    assert count == 2
    assert isinstance(model[2], nn.BatchNorm1d)
    with tape.record([2]):
        model(images(torch.float32)[:2])
    assert sorted(tape.recorded) == [0, 1]
    assert model.get_submodule("late.1").number == 1
    (seen,) = tape.take()
    assert len(seen) == 2
    assert tape.take() == ()
