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
ON_CPU = (
    "bench_recover --width 64 --batch 50 --compile",
    "bench_recover --width 16 --batch 100 --compile",
    "bench_recover --width 16 --batch 10 --groups 10",
    "bench_recover --side 224 --batch 10 --compile",
    "bench_labels --classes 1000",
    "bench_labels --classes 10450",
    "bench_posttrain --side 32 --batch 100",
    "bench_posttrain --side 224 --batch 25 --batches 4",
    "bench_squeeze",
    "bench_start",
)
ON_GPU = (
    "bench_recover --width 64 --batch 50 --groups 8 --compile",
    "bench_recover --side 224 --batch 100 --compile",
    "bench_posttrain --side 32 --batch 100",
    "bench_posttrain --side 224 --batch 100",
)


def main() -> int:
    """Run all; return how many could not be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="5 pairs each, write nothing")
    args = parser.parse_args()
    more = ["--pairs", "5"] if args.quick else ["--write"]
    if args.device == "cpu":
        missed = [words for words in ON_CPU if not _measured([*words.split(), *more])]
    else:
        device = ["--device", args.device]
        missed = [words for words in ON_GPU if not _measured([*words.split(), *device, *more])]
    for words in missed:
        print(f"not measured: {words}")
    return len(missed)


def _measured(words: list[str]) -> bool:
    """Run a benchmark until it is not rejected; return whether it ever was not."""
    name, *options = words
    if name == "bench_start":
        options = [option for option in options if option == "--write"]
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    return any(subprocess.run(command, check=False).returncode == 0 for _ in range(TRIES))


if __name__ == "__main__":
    sys.exit(main())
