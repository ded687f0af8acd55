"""Views of teacher and student come from one draw and one renderer, so they are equal."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from distill_core.config.students import RelabelConfig
from distill_core.labels.views import LabelView, Renderer, sample_label_view
from distill_core.sharding import ImageId
from distill_core.transforms.patch_shuffle import apply_patches
from distill_core.transforms.views import apply_view
from tests.support.tiny import MEAN, SIDE, STD, pixels, tiny_batch

IMAGES = tiny_batch(0) + tiny_batch(1) + tiny_batch(2)
PIXELS = torch.from_numpy(pixels(len(IMAGES)))
KINDS = ["none", "cutmix", "mixup", "cutout"]
BEFORE = [
    {"patches": 2},
    {"rand_augment": {"operations": 2, "magnitude": 6, "spread": 1}},
    {"patches": 4, "rand_augment": {"operations": 1, "magnitude": 9}},
]


def config(
    kind: str = "cutmix", *, flip: bool = True, crop: bool = True, **before: object
) -> RelabelConfig:
    scale = (0.08, 1.0) if crop else None
    return RelabelConfig.model_validate(
        {"views": 9, "crop": scale, "flip": flip, "mix": {"kind": kind}, **before}
    )


def draw(
    kind: str = "cutmix", *, seed: int = 0, images: tuple[ImageId, ...] = IMAGES, view: int = 2
) -> LabelView:
    return sample_label_view(seed, images, view, config(kind), side=SIDE)


def show(rows: list[int], drawn: LabelView, kind: str = "cutmix") -> torch.Tensor:
    return Renderer(kind, MEAN, STD, torch.float64).render(PIXELS, np.array(rows), drawn)


def same(one: LabelView, other: LabelView) -> bool:
    return all(map(np.array_equal, numbers(one), numbers(other)))


def numbers(drawn: LabelView) -> list[np.ndarray]:
    return [getattr(part, f.name) for part in (drawn.view, drawn.mix) for f in fields(part)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_names_give_the_same_draws_whatever_was_drawn_before(kind: str) -> None:
    first = draw(kind)
    np.random.default_rng(0).random(7)
    torch.manual_seed(5)
    draw(kind, view=8)
    assert same(first, draw(kind))


def test_seed_view_and_images_each_change_the_draws() -> None:
    others = (draw(seed=1), draw(view=3), draw(images=IMAGES[::-1]))
    assert not any(same(draw(), other) for other in others)


def test_the_draw_of_an_image_does_not_depend_on_other_images() -> None:
    view = draw("cutout").view
    assert len({tuple(box) for box in view.boxes.tolist()}) > len(IMAGES) // 2
    assert {bool(flip) for flip in view.flips} == {True, False}


def by_the_book(drawn: LabelView, kind: str) -> torch.Tensor:
    """Show every row in float64, image by image: crop, mix, then normalise."""
    view, mix = drawn.view, drawn.mix
    own = torch.stack(
        [
            apply_view(image[None].double() / 255, view.rows(np.array([n])), out=SIDE)[0]
            for n, image in enumerate(PIXELS)
        ]
    )
    mixed = own.clone()
    for n, (top, left, height, width) in enumerate(mix.boxes.tolist()):
        inside = (slice(None), slice(top, top + height), slice(left, left + width))
        partner, lam = own[mix.partners[n]], float(mix.lam[n])
        if kind == "cutmix":
            mixed[n][inside] = partner[inside]
        elif kind == "cutout":
            mixed[n][inside] = torch.from_numpy(mix.colours[n]).double()[:, None, None]
        elif kind == "mixup":
            mixed[n] = lam * own[n] + (1 - lam) * partner
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, STD))
    return (mixed - mean) / std


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dtype", "within"), [(torch.float64, 1e-6), (torch.float32, 5e-6), (torch.bfloat16, 0.1)]
)
def test_every_mix_is_rendered_as_drawn(kind: str, dtype: torch.dtype, within: float) -> None:
    drawn, every = draw(kind), np.arange(len(IMAGES))
    shown = Renderer(kind, MEAN, STD, dtype).render(PIXELS, every, drawn)
    assert shown.dtype == dtype
    expected = by_the_book(drawn, kind)
    torch.testing.assert_close(shown.double(), expected, rtol=0, atol=within)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_rendered_alike_in_any_batch(kind: str) -> None:
    drawn = draw(kind)
    whole = show(list(range(len(IMAGES))), drawn, kind)
    for rows in ([5], [11, 0, 5], [3, 3]):
        torch.testing.assert_close(show(rows, drawn, kind), whole[rows], rtol=0, atol=1e-12)


def test_a_partner_is_pasted_under_its_own_crop_and_flip() -> None:
    drawn, alone = draw(), draw()
    alone.mix.boxes[:] = 0  # nothing pasted: every image under its own view
    mixed, own = show(list(range(12)), drawn), show(list(range(12)), alone)
    boxes = drawn.mix.boxes
    assert (boxes[:, 2:].prod(axis=1) > 0).any()
    for n, (top, left, height, width) in enumerate(boxes.tolist()):
        expected = own[n].clone()
        inside = (slice(None), slice(top, top + height), slice(left, left + width))
        expected[inside] = own[drawn.mix.partners[n]][inside]
        torch.testing.assert_close(mixed[n], expected, rtol=0, atol=1e-12)


def test_mixing_comes_before_normalisation() -> None:
    drawn = sample_label_view(0, IMAGES, 1, config("cutout", flip=False, crop=False), side=SIDE)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, STD))
    raw = show(list(range(12)), drawn, "cutout") * std + mean
    for n, (top, left, height, width) in enumerate(drawn.mix.boxes.tolist()):
        hole = raw[n, :, top : top + height, left : left + width].flatten(1)
        colour = torch.from_numpy(drawn.mix.colours[n]).double()[:, None]
        torch.testing.assert_close(hole, colour.expand_as(hole), rtol=0, atol=1e-7)


def test_the_whole_image_unmixed_is_the_stored_image_normalised() -> None:
    plain = config("none", flip=False, crop=False)
    drawn = sample_label_view(0, IMAGES, 0, plain, side=SIDE)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, STD))
    shown = show(list(range(12)), drawn, "none")
    torch.testing.assert_close(shown, (PIXELS.double() / 255 - mean) / std, rtol=0, atol=1e-12)
    assert shown.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("before", BEFORE)
def test_operations_before_the_crop_change_no_other_draw_and_are_rendered(
    before: dict[str, object],
) -> None:
    drawn = sample_label_view(0, IMAGES, 2, config(**before), side=SIDE)
    assert same(drawn, draw())
    every = list(range(len(IMAGES)))
    whole = show(every, drawn)
    assert not torch.equal(whole, show(every, draw()))
    torch.testing.assert_close(show([11, 0, 5], drawn), whole[[11, 0, 5]], rtol=0, atol=1e-12)


def test_patches_are_shuffled_before_the_crop() -> None:
    plain = config("none", flip=False, crop=False, patches=2)
    drawn = sample_label_view(0, IMAGES, 0, plain, side=SIDE)
    assert drawn.patches is not None
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, STD))
    expected = (apply_patches(PIXELS, drawn.patches).double() / 255 - mean) / std
    shown = show(list(range(12)), drawn, "none")
    torch.testing.assert_close(shown, expected, rtol=0, atol=1e-12)


def test_a_partner_is_rendered_with_its_own_operations_and_patches() -> None:
    settings = config(flip=False, crop=False, **BEFORE[2])
    drawn, alone = (sample_label_view(0, IMAGES, 2, settings, side=SIDE) for _ in range(2))
    alone.mix.boxes[:] = 0
    mixed, own = show(list(range(12)), drawn), show(list(range(12)), alone)
    for n, (top, left, height, width) in enumerate(drawn.mix.boxes.tolist()):
        inside = (slice(None), slice(top, top + height), slice(left, left + width))
        partner = own[drawn.mix.partners[n]][inside]
        torch.testing.assert_close(mixed[n][inside], partner, rtol=0, atol=1e-12)
