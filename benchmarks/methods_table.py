"""The table of the comparison of methods, made from the results of its cells."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.methods_block import Cell

Result = Mapping[str, Any]
Results = Mapping[Cell, Result | None]  # None: not measured yet
RIVAL = "random-real"
# Stages of the students that are judged; those of a student between two rounds have other names.
NOT_IMAGES = frozenset({"relabel", "posttrain", "validate", "hard_labels"})
HEAD = (
    "| method | IPC | seeds | last | EMA | hard labels | gain | images s | cell s | MiB | bytes |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)
LEGEND = (
    "last, EMA: top-1 in percent of the student's last and averaged weights on all test images, "
    "mean +- sample standard deviation over seeds. hard labels: the same student on the same "
    "images without a teacher, seed 0. gain: over random real images with the same labels, IPC and "
    "seed. images s: CPU seconds to make the images, shards that several cells share, such as "
    "class statistics, counted in each. cell s: all stages, both students included. MiB: peak "
    "resident memory of the cell's process. bytes: of the stored image shards; labels are made "
    "online."
)
NOTES = (
    "Not as the presets say: CUDD makes ten images in two rounds of five, one image in one round, "
    "without a student. DELT's eight groups share ten images. CV-DD weighs the pool by the priors "
    "that are published for its own first four networks, by position. FADRM+ is its CIFAR-100 "
    "preset, LPLD and WMDD are those of Tiny-ImageNet. LPQLD is left out: its images are LPLD's, "
    "and all labels are the same here. edc-mosaic, no preset, has EDC's start and patches of "
    "ImageNet-1K."
)


def table(results: Results) -> list[str]:
    """Return a row per method and IPC, the best first at each IPC."""
    groups: dict[tuple[int, str], list[Cell]] = {}
    for cell in sorted(results):
        groups.setdefault((cell.ipc, cell.method), []).append(cell)
    rows = [_row(results, cells) for cells in groups.values()]
    rows.sort(key=lambda row: (row[0], -row[1], row[2]))
    return [*HEAD, *(text for *_, text in rows)]


def best(results: Results, *, ipc: int, count: int, without: Sequence[str]) -> list[str]:
    """Return the methods of the highest accuracy at an IPC, baselines left out."""
    found: dict[str, list[float]] = {}
    for cell, result in results.items():
        if result is not None and cell.ipc == ipc and cell.method not in without:
            found.setdefault(cell.method, []).append(result["last"])
    return sorted(found, key=lambda name: -statistics.mean(found[name]))[:count]


def _row(results: Results, cells: Sequence[Cell]) -> tuple[int, float, str, str]:
    """Return what a row is sorted by, and the row."""
    name, ipc = cells[0].method, cells[0].ipc
    done = [(cell, result) for cell in cells if (result := results[cell]) is not None]
    seeds = f"{len(done)}" if len(done) == len(cells) else f"{len(done)} of {len(cells)}"
    if not done:
        return ipc, 0.0, name, f"| {name} | {ipc} | {seeds} |" + " missing |" + " - |" * 7
    last = [result["last"] for _, result in done]
    hard = [result["hard"] for _, result in done if result["hard"] is not None]
    costs = [
        statistics.mean(values)
        for values in zip(*(_costs(result) for _, result in done), strict=True)
    ]
    texts = [
        name, str(ipc), seeds, spread(last), spread([r["ema"] for _, r in done]), spread(hard),
        spread(_gains(results, done), sign="+"), *(f"{cost:,.0f}" for cost in costs),
    ]  # fmt: skip
    return ipc, statistics.mean(last), name, f"| {' | '.join(texts)} |"


def _costs(result: Result) -> tuple[float, float, float, float]:
    seconds = result["seconds"]
    images = sum(spent for stage, spent in seconds.items() if stage not in NOT_IMAGES)
    return images, sum(seconds.values()), result["peak_mib"], result["image_bytes"]


def _gains(results: Results, done: Sequence[tuple[Cell, Result]]) -> list[float]:
    """Return the gain over random real images, seed by seed."""
    gains = []
    for cell, result in done:
        rival = results.get(Cell(RIVAL, cell.ipc, cell.seed))
        if rival is not None and cell.method != RIVAL:
            gains.append(result["last"] - rival["last"])
    return gains


def spread(values: Sequence[float], *, sign: str = "") -> str:
    """Return mean and sample standard deviation; of one value the value, of none a dash."""
    if not values:
        return "-"
    mean = f"{statistics.mean(values):{sign}.1f}"
    return mean if len(values) == 1 else f"{mean} +- {statistics.stdev(values):.1f}"
