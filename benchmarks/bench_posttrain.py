"""Views of post-training against a loader of files and PIL transforms, images per second.

python -m benchmarks.bench_posttrain [--side 32] [--batch 100] [--batches 10] [--write]
python -m benchmarks.bench_posttrain --side 224 --batch 25 --batches 4

Needs the core alone. JPEG files of quality 75; random crops of 8 to 100 % of the area, flips,
CutMix. An epoch of ours renders an image once, also as a partner in another batch; "each batch by
itself" is what it does when the views of an epoch are too many to keep.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image

from benchmarks.baselines import load_batch
from benchmarks.pairs import conclude, paired, parser
from distill_core.config.students import MixConfig
from distill_core.epoch_rendering import EpochRenderer
from distill_core.label_views import LabelView, Renderer
from distill_core.mixing import Mix, sample_mix
from distill_core.pixel_space import PixelSpace
from distill_core.views import sample_view

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def smooth_images(count: int, side: int) -> np.ndarray:
    """Return coarse noise, enlarged, (count, 3, side, side) uint8: files of a natural size."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    large = [Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC) for one in coarse]
    return np.stack([np.asarray(one) for one in large]).transpose(0, 3, 1, 2).copy()


def jpeg(pixels: np.ndarray) -> bytes:
    """Return (3, S, S) uint8 as a JPEG file of quality 75."""
    file = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(file, "JPEG", quality=75)
    return file.getvalue()


@dataclass(frozen=True)
class Epoch:
    """An epoch of post-training: images as files and as pixels, their draws, and batches of rows.

    The loader's partners stand in the same batch, as in the published loops; ours in any.
    """

    files: Sequence[bytes]
    pixels: torch.Tensor
    drawn: LabelView
    batches: Sequence[np.ndarray]
    in_batch: Sequence[Mix]

    @classmethod
    def of(cls, side: int, batch: int, batches: int) -> Epoch:
        """Draw crops of 8 to 100 % of the area, flips, and CutMix."""
        count, rng, cutmix = batch * batches, np.random.default_rng(0), MixConfig(kind="cutmix")
        pixels = smooth_images(count, side)
        view = sample_view(rng, count=count, side=side, scale=(0.08, 1.0), flip=True)
        drawn = LabelView(view, sample_mix(rng, cutmix, count=count, side=side))
        rows = np.split(rng.permutation(count), batches)
        in_batch = [sample_mix(rng, cutmix, count=batch, side=side) for _ in rows]
        return cls([jpeg(one) for one in pixels], torch.from_numpy(pixels), drawn, rows, in_batch)

    def loaded(self, space: PixelSpace) -> None:
        """Read every batch as the published loops do."""
        side = self.pixels.shape[-1]
        for rows, mix in zip(self.batches, self.in_batch, strict=True):
            files = [self.files[row] for row in rows]
            load_batch(files, self.drawn.view.rows(rows), mix, side=side, space=space)

    def rendered(self, renderer: EpochRenderer) -> None:
        """Render every batch."""
        for _ in renderer.parts(self.batches, self.drawn):
            pass


def main() -> int:
    """Measure, print, and write a result file when asked."""
    args = parser(__doc__, side=32, batch=100, batches=10).parse_args()
    torch.set_num_threads(1)
    epoch = Epoch.of(args.side, args.batch, args.batches)
    space, half = PixelSpace.of(MEAN, STD, torch.empty(0)), torch.bfloat16
    ways = {
        "float32": EpochRenderer(epoch.pixels, Renderer("cutmix", MEAN, STD)),
        "bfloat16": EpochRenderer(epoch.pixels, Renderer("cutmix", MEAN, STD, half)),
        "float32, each batch by itself": EpochRenderer(
            epoch.pixels, Renderer("cutmix", MEAN, STD), room=0
        ),
    }
    loader = partial(epoch.loaded, space)
    noise = paired("A/A: loader over itself", loader, loader, args.pairs)
    ratios = [
        paired(f"loader over ours, {name}", loader, partial(epoch.rendered, way), args.pairs)
        for name, way in ways.items()
    ]
    count = args.batch * args.batches
    notes = [f"- {row.what}: ours {count / row.seconds:,.0f} images/s." for row in ratios]
    title = f"views of post-training, {args.side} px, {args.batches} batches of {args.batch}"
    name = f"posttrain-s{args.side}-b{args.batch}"
    return conclude(title, name, noise, ratios, [*notes, ""], write=args.write)


if __name__ == "__main__":
    sys.exit(main())
