"""Orchestration alone: efficiency of many workers, CPU of the driver, cost of the store.

python -m benchmarks.bench_scale [--seconds 0.5] [--repeats 3] [--shards 2190] [--most 21900]
                                 [--out FILE]

Nothing is computed: workers sleep, or commit a few bytes. Needs the extras `cluster`, `s3`, `dev`.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import ray

from benchmarks.hardware import hardware
from benchmarks.s3_server import LATE, served
from benchmarks.scale_dispatch import dispatch_tables
from benchmarks.scale_store import COMMITTERS, COUNTS, MISSING, store_table

TARGETS = (
    "Targets: efficiency at least 0.95 at 8 workers; at most 1 ms of driver CPU per shard; listing "
    "21,900 markers in less than 10 s."
)
MOTO = "moto on loopback, one Python process of its own, objects in memory"
STORES = (
    f"Shards of 100 classes and one image per class (IPC 1, 10, 100 of 21,841 classes), "
    f"{COMMITTERS} threads commit at once, one data file of five bytes and one marker each. Then "
    f"all but {MISSING} are done and a driver resumes: it lists the markers, plans every key and "
    "finds what is missing; at the end of the stage it reads every marker and writes the manifest. "
    "Seconds are wall time; `list, CPU s` is what the driver itself spends on the listing, and the "
    "rest of it is the server."
)


def main() -> int:
    """Measure, print, and write a result file when asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="mean length of a shard")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shards", type=int, default=COUNTS[1], help="empty ones, for driver CPU")
    parser.add_argument("--most", type=int, default=COUNTS[-1], help="largest number in a store")
    parser.add_argument("--out", type=Path, help="file for the tables, e.g. in benchmarks/results/")
    args = parser.parse_args()
    counts = [count for count in COUNTS if count <= args.most]
    command = " ".join(["python -m benchmarks.bench_scale", *sys.argv[1:]])
    versions = f"Ray {ray.__version__}, {platform.system()} {platform.release()}"
    load = f"load average at the start {os.getloadavg()[0]:.1f}"
    head = [
        f"# Orchestration at scale, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"Command: `{command}` on {hardware()}, {versions}, {load}.",
        TARGETS,
        "",
    ]
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as folder:
        tables = dispatch_tables(
            Path(folder, "dispatch"), mean=args.seconds, repeats=args.repeats, shards=args.shards
        )
        disk = store_table("Local disk (fsync before every rename or link)", folder, counts)
    with served() as (near, far):
        late = store_table(f"S3: {MOTO}, every answer {LATE} ms late", far, counts[:2])
        prompt = store_table(f"S3: {MOTO}", near, counts)
    text = "\n".join([*head, *tables, "", STORES, "", *disk, "", *prompt, "", *late, ""])
    print(text)
    if args.out:
        args.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
