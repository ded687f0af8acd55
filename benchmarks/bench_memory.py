"""Memory of post-training, against its floor: the pixels once per machine, and the network.

python -m benchmarks.bench_memory [--classes 10450] [--side 64] [--write]

Needs the core alone, on Linux. Images are noise, 20 of each class, with stored features as labels;
a ResNet-18 with as many outputs takes two steps. The network is what the same process takes for the
images of 50 classes, without those. Two processes are measured while both hold all images.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.hardware import hardware
from benchmarks.memory_child import SHARD_CLASSES

RESULTS = Path(__file__).parent / "results"
GB = 1e9


@contextmanager
def children(count: int, classes: int, settings: Sequence[str]) -> Iterator[list[subprocess.Popen]]:
    """Start processes that train on one set, one after another, for a block."""
    command = [sys.executable, "-m", "benchmarks.memory_child", str(classes), *settings]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def answer(process: subprocess.Popen) -> dict[str, int]:
    """Return the next line of a process."""
    return json.loads(process.stdout.readline())


def go_on(process: subprocess.Popen) -> None:
    """Let a process go on."""
    process.stdin.write("\n")
    process.stdin.flush()


def measured(count: int, classes: int, settings: Sequence[str]) -> list[dict[str, int]]:
    """Return what processes report that train at the same time, at the end."""
    with children(count, classes, settings) as started:
        for process in started:
            answer(process)
        for process in started:
            go_on(process)
        return [answer(process) for process in started]


def table(classes: int, side: int) -> list[str]:
    """Return the rows of the result."""
    settings = [
        *("sre2l-in21kp", f"data.num_classes={classes}", f"data.side={side}", "ipc=20"),
        *("squeeze.model={name: resnet18_small}", "posttrain.students=[{name: resnet18_small}]"),
        *("posttrain.batch_size=50", "relabel.scheme=features", "precision=float32"),
    ]
    ((small,), (one,), two) = (
        measured(count, some, settings)
        for count, some in ((1, SHARD_CLASSES), (1, classes), (2, classes))
    )
    network, pixels = small["peak"] - small["pixels"], one["pixels"]
    together = sum(process["share"] for process in two)
    rows = (("one process", one["peak"], 1), ("two, sharing the pixels", together, 2))
    return [
        "| processes | pixels | network of each | floor | measured | ratio |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {pixels / GB:.2f} GB | {network / GB:.2f} GB | "
            f"{(floor := pixels + count * network) / GB:.2f} GB | {taken / GB:.2f} GB | "
            f"{taken / floor:.2f} |"
            for name, taken, count in rows
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--classes", type=int, default=10_450)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--write", metavar="NAME", help="file of the result, without its ending")
    given = parser.parse_args(arguments)
    lines = [
        f"# Memory of post-training, {20 * given.classes:,} images of {given.side} pixels",
        "",
        *table(given.classes, given.side),
        "",
        f"- Command: `python -m benchmarks.bench_memory --classes {given.classes} "
        f"--side {given.side}`, once.",
        f"- Hardware: {hardware()}.",
        "- One process: peak resident memory. Two: the sum of their proportional set sizes, in",
        "  which a page that both map counts half for each.",
    ]
    print("\n".join(lines))
    if given.write:
        (RESULTS / f"{given.write}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
