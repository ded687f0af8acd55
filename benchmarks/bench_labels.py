"""Soft labels against one `torch.save` per batch: codes, files, logits, bytes, what is lost.

python -m benchmarks.bench_labels [--classes 1000] [--features 512] [--views 20] [--write]

Needs the core alone. 100 images a shard, batches of 100; stand-in features and head, see
`stand_ins`. To write is to round what a teacher said and to make a file of it; to read is to open
a file, or many for one view of each as an epoch does, and to ask for logits in any order.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines import load_labels, save_labels
from benchmarks.information import share_lost
from benchmarks.pairs import Ratios, Way, conclude, paired, parser
from distill_core.config.students import MixConfig
from distill_core.labels.decoding import CodedFeatures, Head
from distill_core.labels.encoding import quantise
from distill_core.labels.sources import Labels, StoredLabels
from distill_core.labels.topk import keep_top
from distill_core.sharding import ImageId
from distill_core.storage.label_shards import LabelRows, decode_labels, encode_labels
from distill_core.transforms.mixing import sample_mix
from distill_core.transforms.views import sample_view

IMAGES, BATCH, SIDE, TOP, TEMPERATURE = 100, 100, 224, 100, 20.0
CONFIG = (
    f"- Config: {IMAGES} images a shard, batches of {BATCH}; crops of 8 to 100 %, flips and "
    f"CutMix at {SIDE} px; top {TOP}; features and head drawn with seed 0, logits of deviation 2.3."
)


def stand_ins(classes: int, features: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ReLU features (count, D) and a head (C, D) whose logits have a deviation of 2.3."""
    rng = np.random.default_rng(0)
    head = rng.normal(size=(classes, features)).astype(np.float32)
    towards = head[rng.integers(classes, size=count)]
    noise = rng.normal(-0.5, 1.0, (count, features))
    found = np.maximum(noise + 0.5 * towards, 0).astype(np.float32)
    return found, head * np.float32(2.3 / (found[:100] @ head.T).std())


def draws(views: int) -> LabelRows:
    """Return the labels of one shard before a teacher says anything, drawn as relabel draws."""
    drawn = [
        sample_view(np.random.default_rng(v), count=IMAGES, side=SIDE, scale=(0.08, 1), flip=True)
        for v in range(views)
    ]
    cutmix = MixConfig(kind="cutmix")
    mixes = [
        sample_mix(np.random.default_rng((v, 1)), cutmix, count=IMAGES, side=SIDE)
        for v in range(views)
    ]
    return LabelRows(
        scheme="online",
        teacher="0" * 64,
        images=tuple(ImageId(n, f"class_{n}", 0) for n in range(IMAGES)),
        views=range(views),
        boxes=np.stack([d.boxes for d in drawn]),
        flips=np.stack([d.flips for d in drawn]),
        mix_kind="cutmix",
        partners=np.stack([m.partners for m in mixes]),
        lam=np.stack([m.lam for m in mixes]),
        mix_boxes=np.stack([m.boxes for m in mixes]),
        colours=np.stack([m.colours for m in mixes]),
        values=None,
        affine=None,
    )


@dataclass(frozen=True)
class Said:
    """What a teacher says of V views of 100 images."""

    features: Tensor  # (V, 100, D)
    logits: Tensor  # (V, 100, C)
    weight: Tensor  # (C, D)
    draws: LabelRows

    @classmethod
    def of(cls, classes: int, features: int, views: int) -> Said:
        """Return stand-ins."""
        found, head = stand_ins(classes, features, views * IMAGES)
        logits = torch.from_numpy(found @ head.T).view(views, IMAGES, -1)
        by_view = torch.from_numpy(found).view(views, IMAGES, -1)
        return cls(by_view, logits, torch.from_numpy(head), draws(views))

    def kept(self, way: str) -> LabelRows:
        """Return what is stored of it, one of `WAYS`."""
        if way == "logits":
            return replace(self.draws, scheme=way, values=self.logits.half().numpy())
        if way == "top":
            return replace(self.draws, scheme="topk", **self._top())
        codes, affine = quantise(self.features, bits=int(way[0]))
        return replace(self.draws, scheme="features", values=codes.numpy(), affine=affine)

    def _top(self) -> dict[str, np.ndarray]:
        kept = [keep_top(view, TOP) for view in self.logits]
        dtypes = {"values": np.float16, "ids": np.uint16, "rest": np.float16}
        return {
            name: np.stack([getattr(one, name).numpy() for one in kept]).astype(dtype)
            for name, dtype in dtypes.items()
        }

    def epoch(self, data: bytes, *, half: bool) -> Labels:
        """Return one view of as many files as this one has views."""
        head = self.weight, torch.zeros(len(self.weight))
        files = len(self.draws.views)
        readers = [lambda view: decode_labels(data, [view])] * files
        return StoredLabels(readers, [IMAGES] * files, head, "cpu", rest="mean", half=half).view(0)


WAYS = {"8 bits": "8 bits", "4 bits": "4 bits", "logits": "fp16 logits", "top": f"top {TOP}"}
HEADS = {"float32": False, "bfloat16": True}


class Published:
    """One `torch.save` per batch of logits."""

    def __init__(self, said: Said) -> None:
        self.logits = said.logits
        self.beside = torch.zeros(IMAGES, 4), torch.zeros(IMAGES, dtype=torch.bool)
        self.files = self.save()

    def save(self) -> list[bytes]:
        """Write all batches."""
        return [save_labels(part, *self.beside) for part in self.logits]

    def load(self) -> list[Tensor]:
        """Read all batches."""
        return [load_labels(file) for file in self.files]


def writing(said: Said, theirs: Published, pairs: int) -> list[Ratios]:
    """Compare rounding alone, and rounding and making a file."""
    codes = [
        paired(f"code: torch.save over ours, {bits} bits", theirs.save, code(said, bits), pairs)
        for bits in (8, 4)
    ]
    return codes + [
        paired(f"write: torch.save over ours, {name}", theirs.save, write(said, way), pairs)
        for way, name in WAYS.items()
    ]


def code(said: Said, bits: int) -> Way:
    """Return a way to round features."""
    return lambda: quantise(said.features, bits=bits)


def write(said: Said, way: str) -> Way:
    """Return a way to round what a teacher said and to make a file of it."""
    return lambda: encode_labels(said.kept(way))


def reading(said: Said, files: Mapping[str, bytes], theirs: Published, pairs: int) -> list[Ratios]:
    """Compare codes in memory, whole files, and one view of many files, with logits of them."""
    rows, data = [], files["8 bits"]
    for head, half in HEADS.items():
        ways = {
            "decode": batches(whole(said, data, half)),
            "read a file": lambda half=half: batches(whole(said, data, half))(),
            "read an epoch": epoch(said, data, half),
        }
        what = f"torch.load over ours, 8 bits, {head} head"
        rows += [paired(f"{name}: {what}", theirs.load, way, pairs) for name, way in ways.items()]
    for way in ("4 bits", "logits", "top"):
        what = f"read an epoch: torch.load over ours, {WAYS[way]}"
        rows.append(paired(what, theirs.load, epoch(said, files[way], False), pairs))
    return rows


def whole(said: Said, data: bytes, half: bool) -> CodedFeatures:
    """Return all labels of a file in memory."""
    rows = decode_labels(data)
    assert rows.values is not None
    assert rows.affine is not None
    codes = rows.values.reshape(-1, rows.values.shape[-1])
    scale, offset = (
        torch.from_numpy(part)[None] for part in (rows.affine.scale, rows.affine.offset)
    )
    weight = said.weight.bfloat16() if half else said.weight
    head = Head(weight, torch.zeros(len(weight)))
    return CodedFeatures(codes, np.zeros(len(codes), int), scale, offset, rows.affine.bits, head)


def batches(labels: CodedFeatures) -> Way:
    """Return a way to make logits of labels in memory, batch by batch."""
    return lambda: [labels(batch) for batch in shuffled(len(labels.codes))]


def epoch(said: Said, data: bytes, half: bool) -> Way:
    """Return a way to make logits of one view of many files."""

    def logits() -> object:
        labels = said.epoch(data, half=half)
        return [labels.logits(batch) for batch in shuffled(len(labels.drawn.view.flips))]

    return logits


def shuffled(count: int) -> list[np.ndarray]:
    """Return all rows in batches of any."""
    order = np.random.default_rng(0).permutation(count)
    return np.split(order, range(BATCH, count, BATCH))


def main() -> int:
    """Measure, print, and write a result file when asked."""
    args = parser(__doc__, classes=1000, features=512, views=20).parse_args()
    torch.set_num_threads(1)
    said = Said.of(args.classes, args.features, args.views)
    theirs = Published(said)
    files = {way: encode_labels(said.kept(way)) for way in WAYS}
    rows = writing(said, theirs, args.pairs) + reading(said, files, theirs, args.pairs)
    noise = paired("A/A: torch.save over itself", theirs.save, theirs.save, args.pairs)
    notes = [*rates(rows, args.views * IMAGES), "", *sizes(said, files, theirs), "", CONFIG, ""]
    title = f"labels, {args.classes} classes, {args.features} features, {args.views} views"
    name = f"labels-c{args.classes}-d{args.features}"
    return conclude(title, name, noise, rows, notes, write=args.write)


def rates(rows: list[Ratios], count: int) -> list[str]:
    """Return how many labels a second each of our ways does."""
    table = [
        f"| {row.what.replace('torch.save over ', '').replace('torch.load over ', '')} "
        f"| {count / row.seconds:,.0f} |"
        for row in rows
    ]
    return ["| what | labels a second |", "| --- | --- |", *table]


def sizes(said: Said, files: Mapping[str, bytes], theirs: Published) -> list[str]:
    """Return the bytes of a label, views and names of images included, and what it loses."""
    count = len(said.draws.views) * IMAGES
    table = [f"| torch.save | {sum(map(len, theirs.files)) / count:,.0f} | | |"]
    for way, name in WAYS.items():
        lost = [f"{100 * loss(said, files[way], half=half):.4f} %" for half in HEADS.values()]
        table.append(f"| {name} | {len(files[way]) / count:,.0f} | {' | '.join(lost)} |")
    lost = f"information lost at T = {TEMPERATURE:g}"
    header = f"| what | bytes of a label | {lost}, float32 head | bfloat16 head |"
    return [header, "| --- | --- | --- | --- |", *table]


def loss(said: Said, data: bytes, *, half: bool) -> float:
    """Return the share of the first view's information that is lost on the way to a student."""
    found = said.epoch(data, half=half).logits(np.arange(IMAGES))
    return share_lost(said.logits[0].numpy(), found.numpy(), TEMPERATURE)


if __name__ == "__main__":
    sys.exit(main())
