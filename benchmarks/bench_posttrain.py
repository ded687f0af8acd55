"""Views of post-training against a loader of files and PIL transforms, images per second.

python -m benchmarks.bench_posttrain [--side 32] [--batch 100] [--batches 10] [--write]
python -m benchmarks.bench_posttrain --side 224 --batch 25 --batches 4
python -m benchmarks.bench_posttrain --device cuda --side 224 --batch 100

Needs the core alone. JPEG files of quality 75; random crops of 8 to 100 % of the area, flips,
CutMix. An epoch of ours renders an image once, also as a partner in another batch; "each batch by
itself" is what it does when the views of an epoch are too many to keep. On a GPU, where views are
made there, the question is another one: how much of a training step is left for the student beside
its views and labels.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image

from benchmarks.baselines import load_batch
from benchmarks.pairs import Way, clock_of, conclude, paired, parser
from distill_core.config.students import MixConfig
from distill_core.config.training import ModelConfig
from distill_core.labels.decoding import CodedFeatures, Head
from distill_core.labels.views import LabelView, Renderer
from distill_core.models.build import build_model
from distill_core.posttrain.epochs import EpochRenderer
from distill_core.training.losses import kl_soft_labels
from distill_core.transforms.mixing import Mix, sample_mix
from distill_core.transforms.pixel_space import PixelSpace
from distill_core.transforms.views import sample_view

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
FEATURES, TEMPERATURE = 512, 20.0
CLASSES, LARGE = 1000, 128  # from so many pixels on, the stem is that of ImageNet
CONFIG = (
    "- Config: coarse noise as JPEG of quality 75, seed 0; crops of 8 to 100 %, bilinear, flips, "
    f"CutMix of alpha {MixConfig(kind='cutmix').alpha:g}."
)


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


def training(epoch: Epoch, device: str) -> tuple[Way, Way]:
    """Return an epoch of a bfloat16 student on one batch again and again, and on all its data."""
    side, half = epoch.pixels.shape[-1], torch.bfloat16
    labels = labels_of(len(epoch.pixels), device)
    config = ModelConfig(name="resnet18" if side >= LARGE else "resnet18_small")
    model = build_model(config, CLASSES, seed=0).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    renderer = EpochRenderer(epoch.pixels.to(device), Renderer("cutmix", MEAN, STD))
    fixed = next(renderer.parts(epoch.batches, epoch.drawn)).clone()

    logits = labels(epoch.batches[0])

    def step(views: torch.Tensor, teacher: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(torch.device(device).type, dtype=half):
            said = model(views)
        loss = kl_soft_labels(said.float(), teacher, temperature=TEMPERATURE, squared=False)
        loss.backward()
        optimizer.step()

    def without() -> None:
        for _ in epoch.batches:
            step(fixed, logits)

    def with_data() -> None:
        parts = renderer.parts(epoch.batches, epoch.drawn)
        for rows, views in zip(epoch.batches, parts, strict=True):
            step(views, labels(rows))

    return without, with_data


def labels_of(count: int, device: str) -> CodedFeatures:
    """Return stand-ins for labels of one view, as a student reads them."""
    rng = np.random.default_rng(0)
    weight, bias = torch.randn(CLASSES, FEATURES), torch.zeros(CLASSES)
    codes = rng.integers(0, 256, (count, FEATURES), np.uint8)
    line = torch.full((1, FEATURES), 1 / 256, device=device)
    head = Head(weight.to(device, torch.bfloat16), bias.to(device))
    return CodedFeatures(codes, np.zeros(count, np.int64), line, line, 8, head)


def share_of_the_student(args: argparse.Namespace, epoch: Epoch) -> int:
    """Measure how much of a training step is left when views and labels are made as well."""
    clock = clock_of(args.device)
    without, with_data = training(epoch, args.device)
    noise = paired("A/A: steps without data over themselves", without, without, args.pairs, clock)
    what = "steps without data over steps with views and labels"
    row = paired(what, without, with_data, args.pairs, clock)
    images = args.batch * args.batches
    notes = [f"- With data: {images / row.seconds:,.0f} images/s.", CONFIG, ""]
    title = f"a training step with its data, {args.side} px, {args.batches} batches of {args.batch}"
    name = f"posttrain-step-s{args.side}-b{args.batch}"
    return conclude(title, name, noise, [row], notes, write=args.write, device=args.device)


def main() -> int:
    """Measure, print, and write a result file when asked."""
    options = parser(__doc__, side=32, batch=100, batches=10)
    options.add_argument("--device", default="cpu")
    args = options.parse_args()
    torch.set_num_threads(1)
    epoch = Epoch.of(args.side, args.batch, args.batches)
    if args.device != "cpu":
        return share_of_the_student(args, epoch)
    space, half = PixelSpace.of(MEAN, STD, torch.empty(0)), torch.bfloat16
    ways = {
        "float32": EpochRenderer(epoch.pixels, Renderer("cutmix", MEAN, STD)),
        "bfloat16": EpochRenderer(epoch.pixels, Renderer("cutmix", MEAN, STD, half)),
        "float32, each batch by itself": EpochRenderer(
            epoch.pixels, Renderer("cutmix", MEAN, STD), limit=0
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
    return conclude(title, name, noise, ratios, [*notes, CONFIG, ""], write=args.write)


if __name__ == "__main__":
    sys.exit(main())
