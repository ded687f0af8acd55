"""The first minutes on a GPU: does it compute what a CPU does, and how fast?

python -m benchmarks.gpu [--device cuda] [--data FOLDER] [--minutes 8] [--write]
python -m benchmarks.gpu --device cpu --quick

Needs the core alone: torch, torchvision, numpy, pillow, pydantic, PyYAML, safetensors, pyarrow and
fsspec; neither Ray nor Prefect, and no installation of this project. A check that fails or raises
an error does not end the script, so one mistake costs one row. What does not fit into `--minutes`
is left out. `--data` names a folder with CIFAR-10 as `train.parquet` and `test.parquet`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path

import torch

from benchmarks.gpu_checks import Row, checks
from benchmarks.gpu_cifar import rows as cifar_rows
from benchmarks.gpu_speed import PAIRS, device_ready, speeds
from benchmarks.hardware import hardware
from benchmarks.pairs import short_name
from distill_core.environment import set_backend_flags

LIBRARIES = ("torchvision", "numpy", "pillow", "pydantic", "pyarrow", "safetensors")
logger = logging.getLogger(__name__)
RESULTS = Path(__file__).parent / "results"
Todo = Iterable[tuple[str, Callable[[], Row]]]


@dataclass(frozen=True)
class Script:
    """The sections of the script, until its time is over."""

    deadline: float  # on the clock of `time.monotonic`

    def section(self, title: str, todo: Todo) -> tuple[list[str], int]:
        """Return a section as Markdown, and how many of its rows failed."""
        lines, failed = [f"## {title}", "", "| what | result | |", "| --- | --- | --- |"], 0
        for name, measure in todo:
            row = self._row(name, measure)
            failed += row.passed is False
            verdict = {True: "ok", False: "FAILED", None: ""}[row.passed]
            lines.append(f"| {row.what} | {row.value} | {verdict} |")
            print(lines[-1], flush=True)
        return [*lines, ""], failed

    def _row(self, name: str, measure: Callable[[], Row]) -> Row:
        if time.monotonic() > self.deadline:
            return Row(name, "left out: the time was over", None)
        try:
            return measure()
        except Exception as error:
            logger.exception("%s", name)
            (line, *_) = str(error).splitlines() or [""]
            return Row(name, f"{type(error).__name__}: {line}".replace("|", "/"), False)


def head(device: str, command: Sequence[str]) -> list[str]:
    """Return what was measured, on what, and how."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    cuda = f", CUDA {torch.version.cuda}" if torch.device(device).type == "cuda" else ""
    return [
        f"# First minutes on {short_name(device)}",
        "",
        f"{hardware(device)}, torch {torch.__version__}{cuda}, {versions}.",
        f"All seeds are 0; times are medians of {PAIRS} interleaved pairs, a ratio is the time of "
        "the published loop over ours.",
        f"Command: `python -m benchmarks.gpu {' '.join(command)}`",
        "",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write a result file if asked; return the number of failed rows."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--device", default="cuda")
    options.add_argument("--data", help="folder of CIFAR-10; without it, its rows are left out")
    options.add_argument("--minutes", type=float, default=8)
    options.add_argument(
        "--quick", action="store_true", help="the smallest sizes, nothing compiled"
    )
    options.add_argument("--write", action="store_true", help="write benchmarks/results/")
    command = sys.argv[1:] if arguments is None else list(arguments)
    args = options.parse_args(command)
    if (reason := device_ready(args.device)) is not None:
        print(f"--device {args.device}: {reason}. Use another device, or --device cpu.")
        return 1
    set_backend_flags()
    script = Script(time.monotonic() + 60 * args.minutes)
    text, failed = head(args.device, command), 0
    print("\n".join(text))
    sections = {
        "Equality with the CPU": checks(args.device, quick=args.quick),
        "Speed": speeds(args.device, quick=args.quick),
        "CIFAR-10": cifar_rows(args.data, args.device, quick=args.quick),
    }
    for title, todo in sections.items():
        print(f"\n## {title}\n")
        lines, count = script.section(title, todo)
        text, failed = [*text, *lines], failed + count
    if args.write:
        file = RESULTS / f"gpu_{short_name(args.device)}_{date.today():%Y-%m-%d}.md"
        file.write_text("\n".join(text))
    print(f"\n{failed} rows failed.")
    return min(failed, 100)


if __name__ == "__main__":
    sys.exit(main())
