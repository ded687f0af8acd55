"""Accuracy of a student over the bytes of its labels: schemes, pruned to a part of the views.

python -m benchmarks.bench_label_bytes --data FOLDER --out FOLDER [--dataset NAME] [--write NAME]

FOLDER has the folders of `label_bytes.yaml`. What the output folder has already is not made again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.hardware import hardware
from benchmarks.methods_cell import execute, markers_of
from distill_core.config.load import load_run
from distill_core.config.schema import RunConfig
from distill_core.storage.store import Store
from flows import units
from tasks.run import Run, create_run
from tasks.stages.names import StageId
from tasks.stages.table import stages_of

COMPARED = Path(__file__).with_name("label_bytes.yaml")
HARD = "hard labels"
HEAD = (
    "| labels | views of an image | bytes | bytes a view | top-1 | seeds |",
    "| --- | --- | --- | --- | --- | --- |",
)
LEGEND = (
    "top-1 in percent of the student's last weights on all test images, mean +- sample standard "
    "deviation over seeds of the student; teacher, images, steps and learning rates are equal. "
    "bytes: what all label shards take in the store. Hard labels are the classes alone: "
    "they are a column of the images."
)
Tree = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One way to store labels."""

    scheme: str
    views: int  # labelled and stored of each image


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, print the tables, and write a result file when asked."""
    args = _arguments(argv)
    tree = yaml.safe_load(COMPARED.read_text())
    names = args.dataset or list(tree["datasets"])
    text = [
        f"# Accuracy over the bytes of labels, IPC {tree['ipc']}",
        "",
        f"{hardware()}, torch {torch.__version__}, one thread.",
    ]
    for name in names:
        text += ["", f"## {name}", "", *_tables(tree, name, args)]
    command = "python -m benchmarks.bench_label_bytes --data FOLDER --out FOLDER"
    text += [
        "",
        LEGEND,
        "",
        f"What is compared: `benchmarks/{COMPARED.name}`. Command: `{command}`",
    ]
    print("\n".join(text))
    if args.write:
        file = f"label-bytes_{args.write}_{date.today():%Y-%m-%d}.md"
        Path(__file__).parent.joinpath("results", file).write_text("\n".join(text) + "\n")
    return 0


def rows_of(tree: Tree, dataset: Tree, *, smoke: bool) -> list[Row]:
    """Return what is compared on a dataset."""
    epochs = tree["smoke"]["epochs"] if smoke else dataset["epochs"]
    shares = tree["smoke"]["shares"] if smoke else tree["shares"]
    views = dict.fromkeys(max(1, epochs // share) for share in shares)
    return [Row(HARD, 0)] + [Row(name, count) for name in dataset["schemes"] for count in views]


def config_of(tree: Tree, dataset: Tree, row: Row, *, data: Path, smoke: bool) -> RunConfig:
    """Return the run of a way to store labels, with a student for each seed."""
    epochs = tree["smoke"]["epochs"] if smoke else dataset["epochs"]
    hard = row.scheme == HARD
    changes = [
        f"data.path={data / dataset['folder']}",
        *dataset["set"],
        *tree["common"],
        *(tree["smoke"]["common"] if smoke else []),
        *([] if hard else tree["schemes"][row.scheme]),
        *([f"relabel.topk={dataset['topk']}"] if row.scheme == "topk" else []),
        f"relabel.views={max(1, row.views)}",
        f"posttrain.epochs={epochs}",
        f"posttrain.sets=[{'hard_labels' if hard else 'distilled'}]",
        f"ipc={tree['ipc']}",
    ]
    return load_run(dataset["preset"], changes)


def _tables(tree: Tree, name: str, args: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of a dataset's table."""
    dataset = tree["datasets"][name]
    yield from HEAD
    for row in rows_of(tree, dataset, smoke=args.smoke):
        config = config_of(tree, dataset, row, data=args.data, smoke=args.smoke)
        run = _made(config, Store(str(args.out / "store")))
        top1 = [summary["last"]["top1"] for summary in _summaries(run, "posttrain")]
        stored = sum(_label_bytes(run)) if row.views else 0
        print(f"{name}, {row.scheme}, {row.views} views: {top1}", file=sys.stderr, flush=True)
        yield _line(row, top1, stored, images=tree["ipc"] * config.data.num_classes)
    (teacher,) = _summaries(run, "squeeze")
    yield ""
    yield f"Teacher: {teacher['model']}, {teacher['accuracy']:.1f} % on the test images."


def _line(row: Row, top1: Sequence[float], stored: int, *, images: int) -> str:
    spread = f" +- {statistics.stdev(top1):.1f}" if len(top1) > 1 else ""
    each = f"{stored / (images * row.views):.0f}" if row.views else "-"
    views, size = (str(row.views), units.size(stored)) if row.views else ("-", "0")
    mean = f"{statistics.mean(top1):.1f}{spread}"
    return f"| {row.scheme} | {views} | {size} | {each} | {mean} | {len(top1)} |"


def _made(config: RunConfig, store: Store) -> Run:
    """Return a run that has all that is asked of it."""
    run = create_run(config, store)
    execute(run, tuple(stage for stage in stages_of(config) if stage.kind != "validate"))
    return run


def _summaries(run: Run, stage: str) -> list[Mapping[str, Any]]:
    return [marker.summary for marker in markers_of(run, StageId(stage))]


def _label_bytes(run: Run) -> Iterator[int]:
    for marker in markers_of(run, StageId("relabel")):
        yield from (info.bytes for info in marker.files)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the datasets")
    parser.add_argument(
        "--out", type=Path, required=True, help="teachers, images, labels, students"
    )
    parser.add_argument("--dataset", action="append", help="default: all of them")
    parser.add_argument("--smoke", action="store_true", help="smallest sizes: does it run at all")
    parser.add_argument("--write", metavar="HARDWARE", help="write benchmarks/results/, so named")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
