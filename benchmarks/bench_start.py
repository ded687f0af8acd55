"""From the start of a process to its first recover step, phase by phase.

python -m benchmarks.bench_start [--runs 5] [--device cpu] [--write]

Needs the core alone. The file cache is as it comes: the first run, which may find it cold, is a row
of its own and does not count in the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from benchmarks.hardware import hardware
from benchmarks.pairs import short_name
from distill_core.config.training import ModelConfig
from distill_core.models.build import build_model
from distill_core.models.files import teacher_files
from distill_core.models.spec import TeacherSpec

Times = Mapping[str, tuple[float, float]]  # wall and CPU seconds, by phase
TOTAL = "all of it"
HEADER = ("| phase | wall s | CPU s | wall s of the first |", "| --- | --- | --- | --- |")


@dataclass(frozen=True)
class Start:
    """What is started: a teacher, and the size of its first batch."""

    model: ModelConfig
    side: int
    classes: int
    features: int
    batch: int

    @property
    def title(self) -> str:
        return f"{self.model.title}, {self.side} px, batch {self.batch}"

    def write(self, folder: Path) -> None:
        """Write the teacher's two files, as squeeze would."""
        spec = TeacherSpec(
            model=self.model, num_classes=self.classes, class_hash="-", mean=(0.5,) * 3,
            std=(0.25,) * 3, side=self.side, features=self.features, origin="benchmark",
        )  # fmt: skip
        model = build_model(self.model, self.classes, seed=0)
        for kind, data in teacher_files(model, spec).items():
            (folder / f"teacher.{kind}").write_bytes(data)


STARTS = (
    Start(ModelConfig(name="resnet18_small", width=16), 32, 10, 128, 50),
    Start(ModelConfig(name="resnet18"), 224, 1000, 512, 4),
)


def started(folder: Path, batch: int, device: str) -> Times:
    """Start one process and return how long each phase took."""
    command = [sys.executable, "-m", "benchmarks.start_child", str(folder), str(batch), device]
    wall, cpu, times = time.time(), 0.0, {}
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for phase, (day, used) in json.loads(said).items():
        times[phase] = (day - wall, used - cpu)
        wall, cpu = day, used
    return times | {TOTAL: tuple(sum(pair) for pair in zip(*times.values(), strict=True))}


def rows_of(runs: Sequence[Times]) -> list[str]:
    """Return table rows: the median of each phase, and the first run."""
    first, rest = runs[0], runs[1:]
    rows = []
    for phase in first:
        wall, cpu = (statistics.median(run[phase][n] for run in rest) for n in (0, 1))
        rows.append(f"| {phase} | {wall:.2f} | {cpu:.2f} | {first[phase][0]:.2f} |")
    return rows


def report(measured: Mapping[str, Sequence[Times]], device: str) -> str:
    """Return the result as a page."""
    runs = len(next(iter(measured.values()))) - 1
    lines = [
        "# start of a worker, to its first recover step",
        "",
        f"{hardware(device)}, torch {torch.__version__}; one thread, median of {runs} processes.",
        "Config: preset cda-cifar10-cpu with recover.steps=1, random weights.",
        f"Wall time counts what else the machine did: load average {os.getloadavg()[1]:.1f}.",
    ]
    for title, found in measured.items():
        lines += ["", f"## {title}", "", *HEADER, *rows_of(found)]
    command = " ".join(["python -m benchmarks.bench_start", *sys.argv[1:]])
    return "\n".join([*lines, "", f"Command: `{command}`"])


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, and write a result file when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/")
    args = parser.parse_args(words)
    measured = {}
    for start in STARTS:
        with tempfile.TemporaryDirectory() as folder:
            start.write(Path(folder))
            runs = [started(Path(folder), start.batch, args.device) for _ in range(args.runs + 1)]
        measured[start.title] = runs
    text = report(measured, args.device)
    print(text)
    if args.write:
        file = f"start_{short_name(args.device)}_{date.today():%Y-%m-%d}.md"
        Path(__file__).parent.joinpath("results", file).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
