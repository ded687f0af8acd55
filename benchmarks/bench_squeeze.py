"""Reading real images, and a training step on them, against the published loops.

python -m benchmarks.bench_squeeze [--width 16] [--batch 128] [--small 20000] [--large 1000]
    [--pairs 15] [--write]

Needs the core alone. Decoding: JPEG files of quality 75 in Parquet, `small` of 32 pixels and
`large` of 224, against Pillow in a loop; by processes in wall time too, for CPU time does not see
that they work side by side. Training, at 32 pixels: against a chain of PIL transforms per image.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.baselines import decode_files, load_training_batch, training_step
from benchmarks.bench_posttrain import jpeg, smooth_images
from benchmarks.pairs import (
    Clock,
    Ratios,
    Way,
    conclude,
    cpu_time,
    family_time,
    paired,
    parser,
    wall_time,
)
from distill_core.config.data import DataConfig
from distill_core.config.load import load_run
from distill_core.data.ingest import ingest
from distill_core.data.real_images import RealImages
from distill_core.machine_share import usable_cpus
from distill_core.models.build import build_model
from distill_core.seeds import derive_seed, generator, philox_key
from distill_core.storage.store import Store
from distill_core.training.epochs import BatchParts, train_step
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.supervised import Labelled, Resident, TrainState
from distill_core.transforms.pixel_space import PixelSpace
from distill_core.transforms.train_augment import sample_augmentation

DIFFERENT = 500  # images; more of them repeat these
LR = 0.01
PLAIN = (f"optimizer.lr={LR}", "optimizer.weight_decay=0.0", "nesterov=false", "augment.cutout=0.0")
CONFIG = (
    f"- Config: coarse noise as JPEG of quality 75, {DIFFERENT} different ones; training as preset "
    f"cda-cifar10-cpu with {', '.join(PLAIN)}."
)


@contextmanager
def images_of(
    files: Sequence[bytes], *, side: int, folder: Path, decoders: int
) -> Iterator[RealImages]:
    """Write files as a Parquet dataset of one class and yield it, ingested."""
    config = DataConfig(
        name="bench", format="parquet", path=str(folder), num_classes=1, side=side,
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
    )  # fmt: skip
    for split, part in (("train", files), ("test", files[:1])):
        images = [{"bytes": file, "path": f"{n:08d}.jpg"} for n, file in enumerate(part)]
        table = pa.table({"image": images, "label": pa.array([0] * len(part))})
        pq.write_table(table, folder / f"{split}.parquet", row_group_size=1000)
    index = ingest(config, Store(str(folder / "store")))
    with closing(RealImages(config, index, "train", decoders=decoders, start_pixels=0)) as images:
        yield images


def training_steps(
    pixels: np.ndarray, labels: np.ndarray, *, width: int, batch: int, precision: str = "float32"
) -> tuple[Way, Way]:
    """Return one step of the baseline and one of ours, on equal weights, images and draws."""
    sizes = (f"data.side={pixels.shape[-1]}", f"squeeze.model.width={width}")
    plain = [f"squeeze.training.{setting}" for setting in (*PLAIN, f"batch_size={batch}")]
    run = load_run("cda-cifar10-cpu", [*sizes, f"precision={precision}", *plain])
    training = run.squeeze.training
    assert training is not None
    train_state, margin = TrainState.start(run, training, device="cpu"), training.augment.pad_crop
    source = Resident.of(Labelled(pixels, labels), device="cpu")
    parts = BatchParts.of(training, TrainingRuntime())
    seed = derive_seed(run.seed, "squeeze", "model")
    model = build_model(run.squeeze.model, run.data.num_classes, seed=seed)
    sgd = torch.optim.SGD(model.parameters(), LR, momentum=training.optimizer.momentum)
    lines = pixels.transpose(0, 2, 3, 1).copy()
    space = PixelSpace.of(run.data.mean, run.data.std, torch.empty(0))
    steps = [itertools.count(), itertools.count()]

    def rows(step: int) -> np.ndarray:
        return np.random.default_rng(step).permutation(len(labels))[:batch]

    def theirs() -> float:
        step = next(steps[0])
        rng = generator(philox_key(run.seed, "squeeze", "augment"), step)
        drawn = sample_augmentation(rng, training.augment, count=batch, side=pixels.shape[-1])
        images = load_training_batch(lines, rows(step), drawn, margin=margin, space=space)
        return training_step(model, sgd, images, torch.from_numpy(labels[rows(step)]))

    def mine() -> float:
        step = next(steps[1])
        images, chosen = source.batch(rows(step), run, step=step, share=slice(None))
        loss = train_step(train_state.model, train_state, images, chosen, parts, size=batch)
        return float(loss)

    return theirs, mine


def decoding(side: int, count: int, pairs: int) -> list[Ratios]:
    """Return how decoding in this process and in others compares with a loop over files."""
    made = [jpeg(one) for one in smooth_images(min(DIFFERENT, count), side)]
    files, cpus = list(itertools.islice(itertools.cycle(made), count)), max(2, usable_cpus())
    what = f"decoding {count:,} of {side} px: Pillow over"
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        here, there = (
            stack.enter_context(images_of(files, side=side, folder=Path(folder), decoders=n))
            for n in (1, cpus)
        )

        def over(name: str, ours: Way, clock: Clock) -> Ratios:
            def theirs() -> object:
                return decode_files(files)

            return paired(f"{what} {name}", theirs, ours, pairs, clock)

        def running() -> object:
            return there.pixels(np.arange(count))

        fresh = f"{cpus} processes, their start included"
        return [
            over("ours in one process", here.resident, cpu_time),
            over("ours in one process, wall", here.resident, wall_time),
            over(f"{fresh}, CPU time of all", there.resident, family_time),
            over(f"{fresh}, wall", there.resident, wall_time),
            over(f"{cpus} running processes, wall", running, wall_time),
        ]


def main() -> int:
    """Measure, print, and write a result file when asked."""
    args = parser(__doc__, width=16, batch=128, small=20000, large=1000).parse_args()
    torch.set_num_threads(1)
    pixels, labels = smooth_images(2000, 32), np.arange(2000) % 10
    theirs, mine = training_steps(pixels, labels, width=args.width, batch=args.batch)
    again, half = (
        training_steps(pixels, labels, width=args.width, batch=args.batch, precision=precision)[n]
        for n, precision in enumerate(("float32", "bfloat16"))
    )
    noise = paired("A/A: loader and step over themselves", again, theirs, args.pairs)
    rows = [
        paired("training step: baseline over ours, float32", theirs, mine, args.pairs),
        paired("training step: baseline over ours, bfloat16", theirs, half, args.pairs),
        *decoding(32, args.small, args.pairs),
        *decoding(224, args.large, args.pairs),
    ]
    title = f"squeeze: decoding, and a step of width {args.width}, 32 px, batch {args.batch}"
    notes = [f"- {row.what}: {1000 * row.seconds:,.0f} ms of ours." for row in rows]
    name = f"squeeze-w{args.width}-b{args.batch}"
    return conclude(title, name, noise, rows, [*notes, CONFIG, ""], write=args.write)


if __name__ == "__main__":
    sys.exit(main())
