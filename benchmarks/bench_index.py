"""The driver's part of ingestion at full size: merging, and planning from the index.

python -m benchmarks.bench_index [--rows 14200000] [--classes 21841] [--write]

The rows are synthetic and take the way of real ones: shards of ingestion, written by a child
process, are merged by `index_merge.merge` into a partitioned index, which a run is planned from.
Memory is the growth of this process's resident set over what it was before the merge.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from benchmarks.hardware import hardware
from distill_core.config.data import DataConfig
from distill_core.config.load import load_run
from distill_core.data.archives import STAGE
from distill_core.data.index_files import open_index
from distill_core.data.index_merge import merge
from distill_core.data.parts.known import ROWS
from distill_core.data.parts.read import PartRows
from distill_core.data.parts.rows import PlannedPart
from distill_core.data.parts.summary import summarise
from distill_core.data.readers.parts import PART_RECORDS
from distill_core.data.readers.record import Part, Split
from distill_core.sharding import plan_shards
from distill_core.storage.markers import ShardFacts
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store

TEST_SHARE = 28  # training rows for each test row, as in 21K-P
MIB = 2**20
INTERVAL = 0.05  # seconds between two looks at the memory


def class_names(count: int) -> list[str]:
    """Return names like synsets."""
    return [f"n{number:08d}" for number in range(count)]


def key_of(split: Split, number: int) -> str:
    """Return the key of a shard of the benchmark."""
    return hashlib.sha256(f"{split}-{number}".encode()).hexdigest()[:32]


def splits(rows: int) -> dict[Split, int]:
    """Return the rows of each split."""
    return {"train": rows - rows // (TEST_SHARE + 1), "test": rows // (TEST_SHARE + 1)}


def planned(rows: int) -> list[PlannedPart]:
    """Return the parts whose shards `write_shards` writes."""
    return [
        PlannedPart(Part(split, f"{split}-{number:05d}"), key_of(split, number))
        for split, count in splits(rows).items()
        for number in range(-(-count // PART_RECORDS))
    ]


def write_shards(url: str, rows: int, classes: int) -> None:
    """Write the shards of a dataset whose classes have equal numbers of images."""
    shard_store, names = ShardStore(Store(url), STAGE), np.array(class_names(classes))
    for split, count in splits(rows).items():
        for number, first in enumerate(range(0, count, PART_RECORDS)):
            table = shard_table(
                split, np.arange(first, min(count, first + PART_RECORDS)), count, names
            )
            part = PartRows(table, summarise(table), table.num_rows)
            facts = ShardFacts(rows=table.num_rows, classes=0, seconds=0.0, device="cpu")
            shard_store.commit(
                key_of(split, number), shard=f"{split}-{number}", files=part.files(), facts=facts
            )


def shard_table(split: Split, numbers: np.ndarray, count: int, names: np.ndarray) -> pa.Table:
    """Return rows of a split by their numbers, as `read_part` returns them."""
    wnids = names[numbers * len(names) // count].tolist()
    files = [f"{wnid}_{number:08d}.JPEG" for wnid, number in zip(wnids, numbers, strict=True)]
    digests = [hashlib.sha256(f"{split}/{name}".encode()).hexdigest() for name in files]
    columns = {
        "wnid": wnids,
        "name": files,
        "uri": [f"{split}/{wnid}/{name}" for wnid, name in zip(wnids, files, strict=True)],
        "offset": np.zeros(len(numbers), np.int64),
        "size": 100_000 + numbers % 40_000,
        "sha256": digests,
        "status": ["ok"] * len(numbers),
        "reason": [""] * len(numbers),
        "version": [digest[:32] for digest in digests],
    }
    return pa.table(columns).select(ROWS.names).cast(ROWS)


class Peak:
    """The highest growth of the resident set of this process during a `with` block, in bytes."""

    def __init__(self) -> None:
        self._process, self._stopping = psutil.Process(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.bytes = 0

    def __enter__(self) -> Peak:
        self._start = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.wait(INTERVAL):
            self.bytes = max(self.bytes, self._process.memory_info().rss - self._start)


def measure(folder: str, rows: int, classes: int) -> list[str]:
    """Return the lines of the table."""
    command = [sys.executable, "-m", "benchmarks.bench_index", "--shards", folder]
    subprocess.run([*command, "--rows", str(rows), "--classes", str(classes)], check=True)
    run = load_run("cda-in21k", [f"data.num_classes={classes}", "data.path=/nowhere"])
    config: DataConfig = run.data
    store, names = Store(folder), class_names(classes)
    started, cpu = time.perf_counter(), time.process_time()
    with Peak() as peak:
        index = merge(config, store, names, planned(rows))
    wall, used = time.perf_counter() - started, time.process_time() - cpu
    started = time.perf_counter()
    opened = open_index(store, index.id)
    recover = run.recover
    shards = plan_shards(
        opened.classes,
        ipc=run.ipc,
        ipc_range=recover.ipc_range,
        batch_size=recover.batch_size,
        composition=recover.composition,
        shard_classes=recover.shard_classes,
    )
    assert len(opened.class_sizes("train")) == classes
    plan = time.perf_counter() - started
    started = time.perf_counter()
    for label in range(classes):
        opened.rows_of("train", label)
    lookup = time.perf_counter() - started
    partitions = len(index.tables["train"].bounds) + len(index.tables["test"].bounds)
    return [
        "| quantity | value |",
        "| --- | --- |",
        f"| rows, classes | {rows:,}, {classes:,} |",
        f"| shards merged | {len(planned(rows)):,} |",
        f"| partitions | {partitions:,} |",
        f"| merge, wall s (CPU s) | {wall:,.0f} ({used:,.0f}) |",
        f"| growth of the driver's memory | {peak.bytes / MIB:,.0f} MiB |",
        f"| class list, sizes and plan of {len(shards):,} shards | {plan:.2f} s |",
        f"| rows of one class, mean over all | {lookup / classes * 1e6:.0f} us |",
    ]


def main() -> None:
    """Measure, print, and write the table if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=14_200_000)
    parser.add_argument("--classes", type=int, default=21_841)
    parser.add_argument("--shards", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.shards:
        write_shards(options.shards, options.rows, options.classes)
        return
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(folder, options.rows, options.classes)
    text = "\n".join(["# The driver's part of ingestion", "", hardware(), "", *lines, ""])
    print(text)
    if options.write:
        path = Path(__file__).parent / "results" / f"index_cpu_{date.today().isoformat()}.md"
        path.write_text(text)


if __name__ == "__main__":
    main()
