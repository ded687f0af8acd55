"""Moments and affine maps by channel: as exact as float32 allows, whatever the layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distill_core.models.batch_norms import normalise_and_measure
from distill_core.models.moments import affine, gradient_of_moments, mean_and_variance
from tests.support.label_definitions import DEVICES

LAYOUTS = (torch.contiguous_format, torch.channels_last)
SHAPES = [
    (50, 8, 32, 32),
    (100, 4, 112, 112),  # the stem of a ResNet for 224 pixels
    (100, 4, 600, 3),
    (64, 16, 1, 1),
    (100, 8, 1, 40),
    (30, 4, 127, 5),  # rows that cannot be cut evenly
]


def activations(
    shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, device: str = "cpu"
) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    x = 20 + torch.randn(shape, generator=draws, dtype=torch.float64)
    return x.to(device, dtype).contiguous(memory_format=layout)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_moments_are_exact_where_sequential_sums_are_not(
    shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, device: str
) -> None:
    x = activations(shape, dtype, layout, device)
    (mean,), (var,) = mean_and_variance(x, 1)
    wanted_var, wanted_mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    assert mean.dtype == var.dtype == torch.float32
    torch.testing.assert_close(mean.double(), wanted_mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(var.double(), wanted_var, rtol=3e-6, atol=0)


def test_the_kernel_alone_exceeds_that_bound() -> None:
    x = activations(SHAPES[0], torch.bfloat16, torch.channels_last)
    unused = torch.empty(2, 8)
    _, var = torch.ops.aten.batch_norm_update_stats(x, *unused, 1.0)
    wanted = x.double().var((0, 2, 3), correction=0)
    assert float(((var.double() - wanted) / wanted).abs().max()) > 3e-6


def test_groups_that_do_not_divide_the_images_are_refused() -> None:
    x = activations((7, 2, 2, 2), torch.bfloat16, torch.channels_last)
    with pytest.raises(RuntimeError):
        mean_and_variance(x, 3)
    with pytest.raises(RuntimeError):
        gradient_of_moments(x, *torch.zeros(3, 3, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_moments_of_a_group_are_those_it_has_alone(dtype: torch.dtype) -> None:
    x = activations((12, 8, 9, 5), dtype, torch.channels_last)
    together = mean_and_variance(x, 3)
    for number, group in enumerate(x.chunk(3)):
        for ours, alone in zip(together, mean_and_variance(group, 1), strict=True):
            assert torch.equal(ours[number], alone[0])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("dtype", "within"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 4e-3)]
)
def test_gradients_of_moments_by_group_are_those_of_autograd(
    dtype: torch.dtype, within: float, layout: torch.memory_format, device: str
) -> None:
    x = activations((6, 4, 5, 7), dtype, layout, device)
    draws = torch.Generator().manual_seed(1)
    grads = torch.randn(2, 2, 4, generator=draws, dtype=torch.float64).to(device)
    exact = x.double().view(2, 3, 4, 5, 7).requires_grad_()
    var, mean = torch.var_mean(exact, (1, 3, 4), correction=0)
    (wanted,) = torch.autograd.grad((mean, var), exact, (grads[0], grads[1]))
    wide = torch.promote_types(dtype, torch.float32)
    found = gradient_of_moments(x, mean.detach().to(wide), *grads.to(wide))
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=layout)
    largest = float(wanted.abs().max())
    torch.testing.assert_close(found.double(), wanted.flatten(0, 1), rtol=0, atol=within * largest)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_affine_maps_keep_the_dtype(dtype: torch.dtype) -> None:
    x = activations((3, 4, 2, 2), dtype, torch.channels_last)
    wide = torch.promote_types(dtype, torch.float32)
    scale, offset, shift = torch.arange(1.0, 13.0, dtype=wide).view(3, 4)
    exact = (x.double() - shift.view(4, 1, 1)) * scale.view(4, 1, 1) + offset.view(4, 1, 1)
    found = affine(x, scale, offset, shift=shift)
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.double(), exact, rtol=4e-3 if dtype.itemsize < 4 else 1e-5, atol=1e-4
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gradient_is_rounded_to_the_larger_of_its_terms_in_the_layout_of_the_input(
    dtype: torch.dtype, layout: torch.memory_format
) -> None:
    """Normalised output and moments both pull, about as hard; the gradient comes in any layout."""
    x = (activations((6, 4, 5, 7), dtype, layout) - 20).requires_grad_()
    draws = torch.Generator().manual_seed(2)
    pull = torch.randn(x.shape, generator=draws).to(dtype)
    moments = 100 * torch.randn(2, 1, 4, generator=draws)
    scale = torch.linspace(0.5, 2, 4)
    (found,) = torch.autograd.grad(
        normalise_and_measure(x, torch.zeros(4), scale, torch.ones(4)), x, (pull, *moments)
    )
    exact = x.detach().double()
    of_output = pull.double() * scale.view(4, 1, 1)
    mean, (first, second) = exact.mean((0, 2, 3), keepdim=True), moments.double().view(2, 4, 1, 1)
    of_moments = (first + 2 * second * (exact - mean)) / (6 * 5 * 7)
    larger = torch.maximum(of_output.abs(), of_moments.abs())
    assert found.is_contiguous(memory_format=layout)
    # Three roundings: of each term and of the sum, which may be twice the larger one.
    bound = 2**-6 * larger if dtype == torch.bfloat16 else 1e-5 * larger + 1e-6
    assert ((found.double() - of_output - of_moments).abs() <= bound).all()
