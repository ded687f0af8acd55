"""Options that change numbers, on and off: what they cost in accuracy, seed by seed.

python -m benchmarks.bench_guards --data FOLDER --out FOLDER [--jobs 2] [--write HARDWARE]

Uses the override block, the teachers and the output folder of `bench_methods`, and resumes as that
does. What is compared stands in `guards.yaml`.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import torch
import yaml

from benchmarks.bench_methods import SEEDS, Bench, parser_of
from benchmarks.hardware import hardware
from benchmarks.methods_block import BLOCK, Block, Cell, Tree
from benchmarks.methods_cell import run_cell, teacher_pool
from benchmarks.methods_table import NOT_IMAGES, Result, Results, spread

GUARDS = Path(__file__).with_name("guards.yaml")
HEAD = (
    "| option | with | without | difference | inside the spread | CPU time | bytes | default |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
)
LEGEND = (
    "with, without: top-1 in percent of the student's last weights on all test images, mean +- "
    "sample standard deviation over seeds; difference: seed by seed. inside the spread: the mean "
    "difference is no larger than the standard deviation of either side or of the differences. "
    "CPU time: to make the images, with over without. Batches that share a launch have no row: "
    "they give the same bytes (`tests/distill_core/recover/test_batching.py`)."
)


def main() -> int:
    """Run, resume, print, and write a result file when asked."""
    args, tree = parser_of(__doc__).parse_args(), yaml.safe_load(GUARDS.read_text())
    block = block_of(tree, str(args.data), smoke=args.smoke)
    if args.cell:
        method, ipc, seed = args.cell
        run_cell(args.out, block, block.methods()[method], Cell(method, int(ipc), int(seed)))
        return 0
    command = [sys.executable, "-m", "benchmarks.bench_guards", *sys.argv[1:]]
    pool = teacher_pool(block, args.out, jobs=max(1, args.jobs))
    bench = Bench(block, args.out, pool, args.jobs, command)
    names = dict.fromkeys(
        name for one, other, _ in tree["options"].values() for name in (one, other)
    )
    cells = [Cell(name, tree["ipc"], seed) for seed in SEEDS for name in names]
    results = bench.results(cells) if args.table else bench.do(cells)
    text = "\n".join(_text(tree, results))
    print(text)
    if args.write:
        file = f"guards_{args.write}_{date.today():%Y-%m-%d}.md"
        Path(__file__).parent.joinpath("results", file).write_text(text + "\n")
    return 0


def block_of(tree: Tree, data: str, *, smoke: bool) -> Block:
    """Return the override block with the guards in place of what it names beside the presets."""
    block = Block.read(BLOCK, data=data, smoke=smoke)
    return Block({**block.tree, "beside_presets": tree["methods"], "variants": {}}, data)


def _text(tree: Tree, results: Results) -> list[str]:
    machine = f"{hardware()}, torch {torch.__version__}, one thread per cell."
    rows = [_row(what, pair, results, tree["ipc"]) for what, pair in tree["options"].items()]
    command = "python -m benchmarks.bench_guards --data FOLDER --out FOLDER"
    title = f"# Options that change numbers: CIFAR-10, IPC {tree['ipc']}, {len(SEEDS)} seeds"
    where = f"What is compared: `benchmarks/{GUARDS.name}`. Command: `{command}`"
    return [title, "", machine, "", *HEAD, *rows, "", LEGEND, "", where]


def _row(what: str, pair: Sequence[str], results: Results, ipc: int) -> str:
    one, other, default = pair
    both = [(results[Cell(one, ipc, s)], results[Cell(other, ipc, s)]) for s in SEEDS]
    done = [(a, b) for a, b in both if a is not None and b is not None]
    if len(done) < 2:
        return f"| {what} | missing |" + " - |" * 6
    with_, without = ([result["last"] for result in side] for side in zip(*done, strict=True))
    gaps = [a - b for a, b in zip(with_, without, strict=True)]
    noise = max(map(statistics.stdev, (with_, without, gaps)))
    texts = [
        what, spread(with_), spread(without), spread(gaps, sign="+"),
        "yes" if abs(statistics.mean(gaps)) <= noise else "no",
        f"{_mean(done, _recover):.2f}", f"{_mean(done, _bytes):.2f}", default,
    ]  # fmt: skip
    return f"| {' | '.join(texts)} |"


def _mean(done: Sequence[tuple[Result, Result]], cost: object) -> float:
    assert callable(cost)
    return statistics.mean(cost(a) / cost(b) if cost(b) else 1.0 for a, b in done)


def _recover(result: Mapping[str, Mapping[str, float]]) -> float:
    return sum(spent for stage, spent in result["seconds"].items() if stage not in NOT_IMAGES)


def _bytes(result: Result) -> float:
    return float(result["image_bytes"])


if __name__ == "__main__":
    sys.exit(main())
