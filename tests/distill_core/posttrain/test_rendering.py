"""An epoch that is rendered once gives the same pixels as single batches."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch

from distill_core.config.students import LEVELS_FROM, RelabelConfig
from distill_core.labels.views import LabelView, Renderer, sample_label_view
from distill_core.posttrain.epochs import EpochRenderer
from distill_core.seeds import generator
from tests.support.tiny import MEAN, STD, tiny_batch

IMAGES = tiny_batch(0) + tiny_batch(1) + tiny_batch(2)
COUNT = len(IMAGES)
PARTS = [np.array(part) for part in ([3, 0, 11], [7, 2, 5, 1], [4, 10, 6, 8, 9])]
KINDS = ["none", "cutmix", "mixup", "cutout"]


def pixels_of(side: int) -> torch.Tensor:
    return torch.from_numpy(generator(0).integers(0, 256, (COUNT, 3, side, side), dtype=np.uint8))


def draw(kind: str, side: int, view: int = 0) -> LabelView:
    tree = {"views": 3, "crop": (0.08, 1.0), "flip": True, "mix": {"kind": kind}}
    return sample_label_view(0, IMAGES, view, RelabelConfig.model_validate(tree), side=side)


def renderer(kind: str, dtype: torch.dtype = torch.float32) -> Renderer:
    return Renderer(kind, MEAN, STD, dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [16, LEVELS_FROM])
@pytest.mark.parametrize("room", [0, 1 << 20])
def test_an_epoch_renders_the_same_bits_as_single_batches(kind: str, side: int, room: int) -> None:
    pixels, epoch = pixels_of(side), EpochRenderer(pixels_of(side), renderer(kind), room)
    for view in range(2):  # the second epoch renders into the memory of the first
        drawn = draw(kind, side, view)
        shown = list(epoch.parts(PARTS, drawn))
        assert len(shown) == len(PARTS)
        for part, views in zip(PARTS, shown, strict=True):
            assert torch.equal(views, renderer(kind).render(pixels, part, drawn))
            assert views.is_contiguous(memory_format=torch.channels_last)


def test_an_epoch_renders_every_image_once_or_by_part_if_memory_is_short() -> None:
    pixels, drawn, counted = pixels_of(16), draw("cutmix", 16), list[int]()
    show = Renderer._cropped

    def count(self: Renderer, pixels: torch.Tensor, rows: np.ndarray, d: LabelView) -> torch.Tensor:
        counted.extend(rows)
        return show(self, pixels, rows, d)

    with patch.object(Renderer, "_cropped", count):
        list(EpochRenderer(pixels, renderer("cutmix")).parts(PARTS, drawn))
        assert sorted(counted) == list(range(COUNT))
        counted.clear()
        list(EpochRenderer(pixels, renderer("cutmix"), limit=0).parts(PARTS, drawn))
        assert len(counted) > COUNT


def test_an_epoch_over_some_images_renders_only_them_and_their_partners() -> None:
    pixels, drawn = pixels_of(16), draw("cutmix", 16)
    epoch = EpochRenderer(pixels, renderer("cutmix"))
    list(epoch.parts(PARTS[:2], drawn))
    rows = np.concatenate(PARTS[:2])
    assert epoch._views is not None
    assert len(epoch._views) == len({*rows, *drawn.mix.partners[rows]})
