"""Every CIFAR-10 preset under one CPU-sized override block and one post-training recipe.

python -m benchmarks.bench_methods --data FOLDER --out FOLDER [--jobs 2] [--write HARDWARE]

First every method at IPC 10 with one seed, then the best four presets, the baselines and the
variants at IPC 1 and 10 with three; what else has been measured is shown, too. Each cell is a
process and a file in OUT/cells: what is there is not done again, so the same command resumes. Needs
the packages of the core and of `tasks`; neither Ray nor Prefect.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from benchmarks.hardware import hardware
from benchmarks.methods_block import BLOCK, Block, Cell
from benchmarks.methods_cell import Pool, cell_path, run_cell, teacher_pool
from benchmarks.methods_table import LEGEND, NOTES, Result, Results, best, table

FIRST_IPC, IPCS, SEEDS, FINALISTS = 10, (1, 10), (0, 1, 2), 4


@dataclass(frozen=True)
class Bench:
    """The comparison: its block, its folder, its teachers, and how cells are run."""

    block: Block
    out: Path
    pool: Pool
    jobs: int
    command: Sequence[str]  # runs a cell in a process of its own

    def path(self, cell: Cell) -> Path:
        method = self.block.methods()[cell.method]
        return cell_path(self.out, self.block, method, cell, self.pool)

    def results(self, cells: Iterable[Cell]) -> Results:
        """Return what has been measured of some cells."""
        return {cell: _read(self.path(cell)) for cell in cells}

    def found(self, cells: Iterable[Cell]) -> Results:
        """Return what has been measured of some cells, without those that are missing."""
        return {cell: result for cell, result in self.results(cells).items() if result is not None}

    def do(self, cells: Sequence[Cell]) -> Results:
        """Run the cells that are missing; one that fails says why and stays missing."""
        todo = [cell for cell in cells if not self.path(cell).is_file()]
        if self.jobs == 0:
            for cell in todo:
                run_cell(self.out, self.block, self.block.methods()[cell.method], cell)
        else:
            with ThreadPoolExecutor(self.jobs) as threads:
                list(threads.map(self._spawn, todo))
        return self.results(cells)

    def _spawn(self, cell: Cell) -> None:
        words = ["--cell", cell.method, str(cell.ipc), str(cell.seed)]
        ended = subprocess.run([*self.command, *words], capture_output=True, text=True)
        said = f"failed: {ended.stderr.strip()[-2000:]}" if ended.returncode else "done"
        print(f"{cell.method} IPC {cell.ipc} seed {cell.seed}: {said}", flush=True)

    def first(self, methods: Sequence[str]) -> list[Cell]:
        """Return every method once."""
        return [Cell(name, FIRST_IPC, SEEDS[0]) for name in methods]

    def second(self, methods: Sequence[str]) -> list[Cell]:
        """Return the chosen methods at every IPC with every seed."""
        return [Cell(name, ipc, seed) for seed in SEEDS for ipc in IPCS for name in methods]


def main(argv: Sequence[str] | None = None) -> int:
    """Run, resume, print, and write a result file when asked."""
    args = _arguments(argv)
    block = Block.read(args.block, data=str(args.data), smoke=args.smoke)
    if args.cell:
        method, ipc, seed = args.cell
        run_cell(args.out, block, block.methods()[method], Cell(method, int(ipc), int(seed)))
        return 0
    words = [str(word) for word in (argv if argv is not None else sys.argv[1:])]
    command = [sys.executable, "-m", "benchmarks.bench_methods", *words]
    pool = teacher_pool(block, args.out, jobs=max(1, args.jobs))
    bench = Bench(block, args.out, pool, args.jobs, command)
    methods = block.methods()
    chosen = args.only.split(",") if args.only else list(methods)
    chosen.sort(key=lambda name: block.optimises(methods[name]))  # rivals first: gains show early
    todo = bench.first(chosen)
    results = dict(bench.results(todo) if args.table else bench.do(todo))
    if not args.first:
        baselines = [name for name in chosen if not block.optimises(methods[name])]
        always = [*baselines, *(name for name in chosen if name in block.tree["variants"])]
        four = best(results, ipc=FIRST_IPC, count=FINALISTS, without=always)
        todo = bench.second([*always, *four])
        results |= bench.results(todo) if args.table else bench.do(todo)
        results |= bench.found(bench.second(chosen))
    text = _text(bench, results, _command(args))
    print(text)
    if args.write:
        _write(results, text, args.write)
    return 0


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Return what a benchmark in cells is asked with; its help is the first line of `doc`."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10 as Parquet")
    parser.add_argument("--out", type=Path, required=True, help="teachers, shards, cells")
    parser.add_argument("--jobs", type=int, default=2, help="cells at once; 0: in this process")
    parser.add_argument("--smoke", action="store_true", help="smallest sizes: does it run at all")
    parser.add_argument("--table", action="store_true", help="run nothing, show what there is")
    parser.add_argument("--write", metavar="HARDWARE", help="write benchmarks/results/, so named")
    parser.add_argument("--cell", nargs=3, metavar=("METHOD", "IPC", "SEED"), help="one cell")
    return parser


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--block", type=Path, default=BLOCK, help="the override block")
    parser.add_argument("--only", default="", help="methods, with commas; default: all")
    parser.add_argument("--first", action="store_true", help="only IPC 10 with one seed")
    return parser.parse_args(argv)


def _read(path: Path) -> Result | None:
    found: Result | None = json.loads(path.read_text()) if path.is_file() else None
    return found


def _command(args: argparse.Namespace) -> str:
    """Return the command that makes a table, its folders unnamed."""
    words = ["python -m benchmarks.bench_methods --data FOLDER --out FOLDER"]
    words += [f"--{flag}" for flag in ("smoke", "first") if getattr(args, flag)]
    words += [f"--{name} {value}" for name in ("only", "write") if (value := getattr(args, name))]
    return " ".join(words)


def _text(bench: Bench, results: Results, command: str) -> str:
    """Return the result as Markdown."""
    teachers = [
        f"{number}: {fact['model']}, {fact['accuracy']:.1f} % after {fact['epochs']} epochs, "
        f"sha256 {fact['sha256'][:12]}"
        for number, fact in enumerate(bench.pool.facts())
    ]
    return "\n".join(
        [
            "# Methods on CIFAR-10 under one CPU-sized override block and one recipe",
            "",
            f"{hardware()}, torch {torch.__version__}, one thread per cell.",
            "",
            "Teacher pool: " + "; ".join(teachers) + ".",
            "",
            *table(results),
            "",
            LEGEND,
            "",
            NOTES,
            "",
            f"Override block: `benchmarks/{BLOCK.name}`. Command: `{command}`",
        ]
    )


def _write(results: Results, text: str, name: str) -> None:
    """Write the table, and every cell on a line beside it; what people add below a `##` stays."""
    stem = f"methods_{name}_{date.today():%Y-%m-%d}"
    folder = Path(__file__).parent / "results"
    page = folder / f"{stem}.md"
    _, heading, added = (page.read_text() if page.is_file() else "").partition("\n## ")
    page.write_text(text + "\n" + heading + added)
    cells = [json.dumps(results[cell]) for cell in sorted(results) if results[cell] is not None]
    folder.joinpath(f"{stem}.jsonl").write_text("\n".join(cells) + "\n")


if __name__ == "__main__":
    sys.exit(main())
