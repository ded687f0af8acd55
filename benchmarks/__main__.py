"""Every comparison of speed, one after another: `make bench`, on a machine that does nothing else.

python -m benchmarks [--device cpu] [--quick]

Each writes its table to `results/`. One that the machine was too noisy for is measured again, three
times in all; then it is left out and said so.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

TRIES = 3
QUICK = {
    "bench_start": ("--runs", "1"),
    "bench_ingest": ("--rounds", "1"),
    "bench_squeeze_data": ("--rounds", "1"),
}
ON_CPU = (
    "bench_recover --width 64 --batch 50 --compile",
    "bench_recover --width 16 --batch 100 --compile",
    "bench_recover --width 16 --batch 10 --groups 10",
    "bench_recover --side 224 --batch 10 --compile",
    "bench_labels --classes 1000",
    "bench_labels --classes 10450",
    "bench_relabel --side 32 --width 64",
    "bench_posttrain --side 32 --batch 100",
    "bench_posttrain --side 224 --batch 25 --batches 4",
    "bench_squeeze",
    "bench_start",
    "bench_ingest",
    "bench_squeeze_data",
)
ON_GPU = (
    "bench_recover --width 64 --batch 50 --groups 8 --compile",
    "bench_recover --side 224 --batch 100 --compile",
    "bench_posttrain --side 32 --batch 100",
    "bench_posttrain --side 224 --batch 100",
    "bench_relabel --side 224",
    "bench_start",
)


def main() -> int:
    """Run all; return how many could not be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="5 pairs each, write nothing")
    args = parser.parse_args()
    on_cpu = args.device == "cpu"
    more = [] if on_cpu else ["--device", args.device]
    more += [] if args.quick else ["--write"]
    todo = ON_CPU if on_cpu else ON_GPU
    missed = [words for words in todo if not _measured([*words.split(), *more], args.quick)]
    for words in missed:
        print(f"not measured: {words}")
    return len(missed)


def _measured(words: list[str], quick: bool) -> bool:
    """Run a benchmark until it is not rejected; return whether it ever was not."""
    name, *options = words
    if quick:
        options += QUICK.get(name, ("--pairs", "5"))
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    return any(subprocess.run(command, check=False).returncode == 0 for _ in range(TRIES))


if __name__ == "__main__":
    sys.exit(main())
