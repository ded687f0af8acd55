"""Labels made and stored a second, against a loader of files and one `torch.save` per batch.

python -m benchmarks.bench_relabel [--side 32] [--width 16] [--images 100] [--views 10]
    [--device cpu] [--pairs 15] [--write]

Needs the core alone. Each view of a shard is a batch: the published loop loads it (a file and a
chain of PIL transforms per image), asks the teacher and saves logits in half precision; ours
renders it, asks the teacher, and stores all views as one file of codes. A published loop of one
process is measured; on a GPU it would be given more of them to load with.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.baselines import load_batch, save_labels
from benchmarks.bench_posttrain import jpeg, smooth_images
from benchmarks.bench_recover import LARGE, MEAN, STD, Contest
from benchmarks.pairs import Ratios, Way, clock_of, conclude, paired, parser
from distill_core.config.fields import Precision
from distill_core.config.students import MixConfig, RelabelConfig
from distill_core.labels.relabel import relabel_shard
from distill_core.labels.views import sample_label_view
from distill_core.models.files import load_teacher
from distill_core.sharding import ImageId
from distill_core.storage.image_shards import ImageRows
from distill_core.storage.label_shards import encode_labels
from distill_core.transforms.pixel_space import PixelSpace

CROP, CLASSES = (0.08, 1.0), 1000
CONFIG = (
    "- Config: coarse noise as JPEG of quality 75; crops of 8 to 100 % of the area, flips, CutMix; "
    f"ResNet-18 with random weights and {CLASSES} classes; codes of 8 bits, one shard."
)


@dataclass(frozen=True)
class Shard:
    """Images as files and as pixels, and how they are to be described."""

    rows: ImageRows
    config: RelabelConfig
    device: str

    @classmethod
    def of(cls, images: int, side: int, views: int, device: str) -> Shard:
        """Draw the images."""
        named = tuple(ImageId(n, f"class_{n}", 0) for n in range(images))
        config = RelabelConfig(
            scheme="features", views=views, crop=CROP, flip=True, mix=MixConfig(kind="cutmix")
        )
        return cls(ImageRows(named, smooth_images(images, side)), config, device)

    def published(self, model: nn.Module) -> Way:
        """Return the published loop over all views."""
        files, side = [jpeg(one) for one in self.rows.pixels], self.rows.pixels.shape[-1]
        space, config = PixelSpace.of(MEAN, STD, torch.empty(0)), self.config
        drawn = [
            sample_label_view(0, self.rows.images, view, config, side=side)
            for view in range(config.views)
        ]

        @torch.no_grad()
        def label() -> list[bytes]:
            saved = []
            for one in drawn:
                batch = load_batch(files, one.view, one.mix, side=side, space=space)
                boxes, flips = torch.from_numpy(one.view.boxes), torch.from_numpy(one.view.flips)
                saved.append(save_labels(model(batch.to(self.device)).cpu(), boxes, flips))
            return saved

        return label

    def ours(self, contest: Contest, precision: Precision) -> Way:
        """Return our labelling of all views."""
        teacher = load_teacher(
            contest.files["safetensors"], contest.files["json"], precision=precision
        ).to(self.device)

        def label() -> bytes:
            made = relabel_shard(
                self.rows, range(self.config.views), config=self.config, teacher=teacher, seed=0,
            )  # fmt: skip
            return encode_labels(made)

        return label


def main() -> int:
    """Measure, print, and write a result file when asked."""
    options = parser(__doc__, side=32, width=16, images=100, views=10)
    options.add_argument("--device", default="cpu")
    args = options.parse_args()
    torch.set_num_threads(1)
    shard = Shard.of(args.images, args.side, args.views, args.device)
    contest = Contest(args.width, args.side, args.images, args.device, CLASSES)
    theirs, clock = shard.published(contest.model.eval()), clock_of(args.device)
    noise = paired("A/A: baseline over itself", theirs, theirs, args.pairs, clock)
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    rows = [
        paired(f"baseline over ours, {p}", theirs, shard.ours(contest, p), args.pairs, clock)
        for p in precisions
    ]
    notes = [*(_rate(row, args.images * args.views) for row in rows), CONFIG, ""]
    width = 64 if args.side >= LARGE else args.width
    sizes = f"{args.images} images, {args.views} views"
    title = f"labels made and stored, ResNet-18 width {width}, {args.side} px, {sizes}"
    name = f"relabel-w{width}-s{args.side}-n{args.images}-v{args.views}"
    return conclude(title, name, noise, rows, notes, write=args.write, device=args.device)


def _rate(row: Ratios, labels: int) -> str:
    return f"- {row.what}: ours makes and stores {labels / row.seconds:,.0f} labels/s."


if __name__ == "__main__":
    sys.exit(main())
