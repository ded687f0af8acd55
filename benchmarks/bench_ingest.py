"""Ingestion against decoding alone, a scan by torchvision, and the library webdataset.

python -m benchmarks.bench_ingest [--small 20000] [--large 2000] [--rounds 5] [--parts 16]
    [--workers 1 2 4] [--no-s3] [--write]

Needs the extras `cluster`, `s3` and `dev`. Real images are those of the tests (DISTILL_TEST_DATA);
synthetic ones replace them where they are absent. Every round runs every way once, and the table
has medians over the rounds; ratios are taken within a round. Workers are started before they are
measured. Planning, dispatch and the merge of the index count, and so does the CPU time of the
driver. The server of the bucket is another process, whose CPU time does not count.
"""

from __future__ import annotations

import argparse
import io
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import date
from pathlib import Path

import PIL
from PIL import Image, features

from benchmarks.hardware import hardware
from benchmarks.ingest_sources import ImageSource, large_files, small_files
from benchmarks.ingest_workers import Cost, Ingestion, cost_of, efficiency
from benchmarks.pairs import AA_LIMIT
from benchmarks.s3_server import served
from distill_core.data.readers import parts

Ways = Mapping[str, Callable[[], Cost]]
DECODING, TWICE = "decoding alone", "A/A: decoding alone once more"
HEADER = (
    "| way | images per CPU s | images per wall s | per CPU s, over decoding alone | efficiency |",
    "| --- | --- | --- | --- | --- |",
)
AGAIN = ", again and unchanged"
S3_FRACTION = 10  # images from a folder for each one from the bucket, whose server is slow


def decode_all(source: ImageSource) -> None:
    """Decode the images, which are in memory, to their end."""
    for _, data in source.paths():
        with Image.open(io.BytesIO(data)) as image:
            image.convert("RGB")


def scan_with_torchvision(source: ImageSource) -> None:
    """List and decode both splits as torchvision does."""
    from torchvision.datasets import ImageFolder

    count = sum(1 for split in ("train", "test") for _ in ImageFolder(source.folder / split))
    assert count == source.count


def scan_with_webdataset(source: ImageSource) -> None:
    """Read and decode the tar files with the library webdataset."""
    import webdataset

    samples = webdataset.WebDataset(source.shards(), shardshuffle=False).decode("pilrgb")
    assert sum(1 for _ in samples) == source.count


def has_webdataset() -> bool:
    """Return whether the library is installed; it is no dependency."""
    try:
        import webdataset  # noqa: F401
    except ImportError:
        return False
    return True


@contextmanager
def ways_of(
    source: ImageSource, folder: Path, place: str, url: str, workers: Sequence[int]
) -> Iterator[Ways]:
    """Yield every way to read the images; workers end with the context.

    Args:
        source: the images.
        folder: for stores.
        place: kind of place that they are ingested from.
        url: its address.
        workers: numbers of workers.
    """
    ways: dict[str, Callable[[], Cost]] = {
        DECODING: lambda: cost_of(lambda: decode_all(source)),
        TWICE: lambda: cost_of(lambda: decode_all(source)),
        "torchvision's ImageFolder": lambda: cost_of(lambda: scan_with_torchvision(source)),
    }
    if has_webdataset():
        ways["webdataset"] = lambda: cost_of(lambda: scan_with_webdataset(source))
    with ExitStack() as stack:
        for count in workers:
            store = folder / f"store-{source.folder.name}-{count}"
            ingestion = stack.enter_context(closing(Ingestion(source.run(url), store, count)))
            title = title_of(place, count)
            ways[title] = ingestion.first
            if count == min(workers):
                ways[title + AGAIN] = ingestion.again
        yield ways


def title_of(place: str, workers: int) -> str:
    """Return the title of ingestion from a place by some workers."""
    return f"ingest, {place}, {workers} worker{'s' if workers > 1 else ''}"


def measured(ways: Ways, rounds: int) -> dict[str, list[Cost]]:
    """Return what each way costs in each round, after one that does not count."""
    costs: dict[str, list[Cost]] = {title: [] for title in ways}
    for number in range(-1, rounds):
        for title, way in ways.items():
            cost = way()
            if number >= 0:
                costs[title].append(cost)
    return costs


def rows_of(
    costs: Mapping[str, Sequence[Cost]], count: int, place: str, workers: Sequence[int]
) -> Iterator[str]:
    """Yield the rows of a table."""
    numbers = {title_of(place, n): n for n in workers}
    for title, of_way in costs.items():
        per_cpu = statistics.median(count / cost.cpu for cost in of_way)
        per_wall = statistics.median(count / cost.wall for cost in of_way)
        cells = [title, f"{per_cpu:,.0f}", f"{per_wall:,.0f}", f"{shares(costs, title):.2f}"]
        number, one = numbers.get(title, 0), costs.get(title_of(place, 1), ())
        cells.append("")
        if number > 1 and one:
            both = zip(one, of_way, strict=True)
            cells[-1] = f"{statistics.median(efficiency(a, b, number) for a, b in both):.2f}"
        yield f"| {' | '.join(cells)} |"


def shares(costs: Mapping[str, Sequence[Cost]], title: str) -> float:
    """Return the rate of a way per CPU second over that of decoding alone."""
    pairs = zip(costs[DECODING], costs[title], strict=True)
    return statistics.median(decoding.cpu / cost.cpu for decoding, cost in pairs)


def again_ratio(costs: Mapping[str, Sequence[Cost]], place: str, workers: int) -> str:
    """Return a sentence about the rate of an unchanged source."""
    title = title_of(place, workers)
    pairs = list(zip(costs[title], costs[title + AGAIN], strict=True))
    cpu = statistics.median(first.cpu / again.cpu for first, again in pairs)
    wall = statistics.median(first.wall / again.wall for first, again in pairs)
    rates = f"{cpu:.0f} times the rate of the first by CPU time, {wall:.0f} by wall time"
    return f"- {place}, unchanged: {rates}."


def compared(
    source: ImageSource, args: argparse.Namespace, bucket: str | None
) -> tuple[list[str], float]:
    """Return the section of one set of images, from a folder or a bucket, and its A/A ratio."""
    source.write()
    # So few images would be one part, for one worker.
    parts.PART_RECORDS = -(-len(source.files) // args.parts)
    place, url = "local", str(source.folder)
    if bucket is not None:
        place, url = "S3", f"{bucket}/{source.folder.name}"
        source.upload(url)
    with ways_of(source, source.folder.parent, place, url, args.workers) as ways:
        costs = measured(ways, args.rounds)
    size = sum(len(data) for _, data in source.paths()) / source.count / 1000
    head = f"## {source.title}, {place}: {source.count:,} images, {size:.1f} kB on average"
    rows = rows_of(costs, source.count, place, args.workers)
    noise = shares(costs, TWICE)
    return ["", head, "", *HEADER, *rows, "", again_ratio(costs, place, min(args.workers))], noise


def report(sections: Sequence[str], args: argparse.Namespace) -> str:
    """Return the result as a page."""
    versions = f"Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}"
    notes = [] if has_webdataset() else ["- The library webdataset is not installed: no row."]
    command = " ".join(["python -m benchmarks.bench_ingest", *sys.argv[1:]])
    return "\n".join(
        [
            "# Ingestion",
            "",
            f"{hardware()}, {versions}; medians of {args.rounds} rounds; every worker on one CPU, "
            f"{args.parts} parts.",
            *sections,
            *notes,
            "",
            f"Command: `{command}`",
            "",
        ]
    )


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, and write a result file when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", type=int, default=20_000, help="images of 64 pixels")
    parser.add_argument("--large", type=int, default=2_000, help="photographs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", type=int, default=16, help="of the images to train on")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--no-s3", action="store_true", help="local files only")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/")
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sections, noises = list[str](), list[float]()
        buckets = [None] if args.no_s3 else [None, stack.enter_context(served())[0]]
        for bucket, (name, count, side, files) in itertools.product(
            buckets,
            (("small", args.small, 64, small_files), ("large", args.large, 224, large_files)),
        ):
            wanted = count // (1 if bucket is None else S3_FRACTION)
            if wanted:
                place = Path(folder, f"{name}-{'local' if bucket is None else 's3'}")
                lines, noise = compared(ImageSource(*files(wanted), side, place), args, bucket)
                sections += lines
                noises.append(noise)
    text = report(sections, args)
    print(text)
    if any(abs(noise - 1) > AA_LIMIT for noise in noises):
        print("rejected: an A/A row is off; measure again on a quieter machine.")
        return 1
    if args.write:
        file = f"ingest_cpu_{date.today():%Y-%m-%d}.md"
        Path(__file__).parent.joinpath("results", file).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
