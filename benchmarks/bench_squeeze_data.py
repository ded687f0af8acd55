"""Training images of a teacher: ours from files and from packs, against what others read.

python -m benchmarks.bench_squeeze_data [--photographs 2000] [--small 5000] [--rounds 3] [--write]

Photographs are stand-ins of 500 x 375; small images are Tiny-ImageNet's, if the data of the tests
is there (DISTILL_TEST_DATA). Every way yields batches of random crops, flipped and normalised, in
one process without decoders or workers; "pixels alone" is what the CPU does of that where a GPU
trains, because the GPU flips and normalises, and crops squares. The libraries webdataset, litdata
and mosaicml-streaming have rows where they are installed; they are no dependencies. Every round
runs every way once in another order. The table has images per CPU second, medians over the rounds,
and ratios that are taken within a round.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path

import PIL
import torch
from PIL import features

from benchmarks.hardware import hardware
from benchmarks.pairs import AA_LIMIT, cpu_time
from benchmarks.squeeze_sources import Packed, Photographs, small_images
from benchmarks.squeeze_ways import Others, Ours
from distill_core.allocator import keep_freed_memory

Ways = Mapping[str, Callable[[], int]]
TODAY, TWICE = "squares of files, cropped in training", "A/A: the same once more"
PACKS = "packs: "
HEADER = (
    "| way | images per CPU s | over the first row | over the best of the others |",
    "| --- | --- | --- | --- |",
)


def ways_of(source: Photographs, packed: Packed) -> tuple[Ways, set[str]]:
    """Return every way to read the images, and the names of those of others.

    Args:
        source: the images as a folder.
        packed: the same, reduced.
    """
    files, packs = Ours(source.run()), Ours(packed.run())
    ways: dict[str, Callable[[], int]] = {TODAY: files.epoch, TWICE: files.epoch}
    for name, ours in (("files: ", files), (PACKS, packs)):
        ways[f"{name}crops of whole images"] = lambda ours=ours: ours.epoch(crop_from="image")
        ways[f"{name}crops of whole images, scaled decoding"] = lambda ours=ours: ours.epoch(
            crop_from="image", decode="scaled"
        )
        ways[f"{name}crops of whole images, pixels alone"] = lambda ours=ours: ours.pixels(
            crop_from="image"
        )
        ways[f"{name}squares, pixels alone"] = ours.pixels
    ways[f"{PACKS}squares"] = packs.epoch
    others: dict[str, Callable[[], int]] = {}
    for name, folder in (("files", source.folder), ("reduced files", packed.folder)):
        library = Others(folder, side=source.side)
        others[f"torchvision's ImageFolder and DataLoader, {name}"] = library.torchvision
    reduced = Others(packed.folder, side=source.side)
    libraries = {
        "webdataset": reduced.webdataset,
        "litdata": reduced.litdata,
        "mosaicml-streaming": reduced.mosaicml,
    }
    for title, way in libraries.items():
        if way is not None:
            others[f"{title}, reduced files"] = way
    return ways | others, set(others)


def measured(ways: Ways, rounds: int, count: int) -> dict[str, list[float]]:
    """Return the images per CPU second of each way in each round, after one that does not count."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1, rounds):
        names = list(ways) if number % 2 else list(reversed(ways))
        for name in names:
            seconds = cpu_time(lambda name=name: check(ways[name](), count, name))
            if number >= 0:
                rates[name].append(count / seconds)
    return rates


def check(read: int, count: int, name: str) -> None:
    """Refuse a way that has left out more than an incomplete last batch."""
    if not count - 64 < read <= count:
        raise RuntimeError(f"{name}: {read} images read, expected {count}.")


def rows_of(rates: Mapping[str, Sequence[float]], others: set[str]) -> list[str]:
    """Return the rows of a table."""
    best = [max(rates[name][n] for name in others) for n in range(len(rates[TODAY]))]
    rows = []
    for name, of_way in rates.items():
        first, over = (
            statistics.median(a / b for a, b in zip(of_way, base, strict=True))
            for base in (rates[TODAY], best)
        )
        rows.append(f"| {name} | {statistics.median(of_way):,.0f} | {first:.2f} | {over:.2f} |")
    return rows


def compared(
    source: Photographs, args: argparse.Namespace, folder: Path
) -> tuple[list[str], float]:
    """Return the section of one set of images, and its A/A ratio."""
    source.write()
    packed = Packed(source, folder / f"{source.folder.name}-packed")
    packed.write()
    ways, others = ways_of(source, packed)
    rates = measured(ways, args.rounds, len(source.files))
    pairs = zip(rates[TWICE], rates[TODAY], strict=True)
    size, small = (sum(map(len, files)) / len(files) / 1000 for files in source.bytes_and(packed))
    head = (
        f"## {source.title}: {len(source.files):,} images, {size:.1f} kB on average, "
        f"{small:.1f} kB reduced"
    )
    return ["", head, "", *HEADER, *rows_of(rates, others)], statistics.median(
        a / b for a, b in pairs
    )


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, and write a result file when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photographs", type=int, default=2000)
    parser.add_argument("--small", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/")
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()  # as a worker does
    sections, noises = list[str](), list[float]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = [Photographs.stand_ins(args.photographs, folder / "photographs")]
        sources += small_images(args.small, folder / "small")
        for source in sources:
            lines, noise = compared(source, args, folder)
            sections += lines
            noises.append(noise)
    text = "\n".join(
        [
            "# Training images of a teacher",
            "",
            f"{hardware()}, torch {torch.__version__}, Pillow {PIL.__version__}, libjpeg-turbo "
            f"{features.version('libjpeg_turbo')}; medians of {args.rounds} rounds, one process.",
            *sections,
            "",
            f"Command: `{' '.join(['python -m benchmarks.bench_squeeze_data', *sys.argv[1:]])}`",
            "",
        ]
    )
    print(text)
    if any(abs(noise - 1) > AA_LIMIT for noise in noises):
        print("rejected: an A/A row is off; measure again on a quieter machine.")
        return 1
    if args.write:
        file = f"squeeze-data_cpu_{date.today():%Y-%m-%d}.md"
        Path(__file__).parent.joinpath("results", file).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
