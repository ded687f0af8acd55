"""Rehearse the path of real images at the scale of ImageNet-21K, with a kill inside an epoch.

python -m tests.rehearsal.real [--classes N] [--images N] [--server moto|ceph] [--out FILE]

A million tiny JPEGs in 21,841 archives in a bucket are ingested, packed and read by every stage.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch

from benchmarks.hardware import hardware
from distill_core.config.load import load_run
from distill_core.data.index_files import open_index
from distill_core.evaluation.blocks import validation_blocks
from distill_core.storage.filesystems import open_filesystem
from distill_core.storage.store import Store
from flows import units
from flows.status.status import run_activity, run_status
from tasks.run import Run, default_name
from tasks.stages.dataset_record import read_dataset_record
from tests.rehearsal import checks
from tests.rehearsal.rehearse import Pass, peak_of
from tests.rehearsal.synset_tars import SIDE, upload
from tests.support.s3_servers import SERVERS

PRESET = "rehearsal-21k"
POLL_SECONDS = 0.1
CLASSES, IMAGES, TESTS = 21_841, 46, 2  # of each class; of those, to test on
BUCKET = "rehearsal"
WORKERS = 2
INSIDE = re.compile(r"step-(\d{6})-(\d{6})\.safetensors$")  # a checkpoint inside an epoch
Place = tuple[int, int]  # epochs, and batches after them


@dataclass
class Facts:
    """The results of a rehearsal."""

    run: Run
    command: str
    killed_at: Place
    resumed_at: Place  # first checkpoint of the second driver
    first: Pass
    second: Pass
    rows: list[tuple[str, str]] = field(default_factory=list)


def changes_of(url: str, *, batch: int, every: int) -> list[str]:
    """Return the changes to the preset: the dataset, packs, and stages that read real images."""
    data = {"name": "tars", "format": "tars", "path": url, "split": f"per_class:{TESTS}"}
    data |= {"side": SIDE, "mean": [0.5] * 3, "std": [0.3] * 3, "pack": {"encoding": "original"}}
    return [
        f"data={json.dumps(data)}",
        "squeeze.training.epochs=1",
        f"squeeze.training.batch_size={batch}",
        "recover.init=real",
        "recover.composition=one_class",
        "recover.steps=10",
        "recover.terms={cross_entropy: 1.0, class_bn_statistics: 0.01}",
        "posttrain.sets=[distilled]",
        "posttrain.epochs=2",
        "posttrain.evaluate_every=2",
    ]


def rehearse(
    source: str, store: str, *, classes: int, images: int, batch: int, every: int
) -> Facts:
    """Run, kill inside an epoch, resume and check; raises AssertionError where a check fails.

    Args:
        source: URL of the archives, which are there.
        store: URL of an empty store.
        classes: in the source.
        images: of each class.
        batch: images of a training step of the teacher.
        every: steps between its checkpoints.
    """
    torch.set_num_threads(1)
    changes = changes_of(source, batch=batch, every=every)
    config = load_run(PRESET, [*changes, f"data.num_classes={classes}"])
    run = Run(default_name(config), config, Store(store))
    options = ("--store", store, "--workers", str(WORKERS), "--checkpoint-every", f"{every} steps")
    command = ("run", PRESET, *changes, f"data.num_classes={classes}", *options)
    first, killed_at = _until_inside_an_epoch(run, command)
    second, seen = _watched(run, ("resume", run.name, *options))
    resumed_at = min(seen, default=(1, 0))
    assert killed_at < resumed_at, f"the training began again: {resumed_at} after {killed_at}"
    facts = Facts(run, f"distill {' '.join(command)}", killed_at, resumed_at, first, second)
    facts.rows = list(_checked(run, classes=classes, images=images))
    return facts


def _checked(run: Run, *, classes: int, images: int) -> Iterator[tuple[str, str]]:
    """Yield what a finished run has, after checking it."""
    record = read_dataset_record(run)
    assert record is not None
    index = open_index(run.store, record.dataset)
    counts = index.count_readable("train"), index.count_readable("test")
    assert counts == (classes * (images - TESTS), classes * TESTS), counts
    yield "real images, to train and to test on", f"{counts[0]:,} and {counts[1]:,}"
    packs = checks.manifest(run, "pack").entries
    size = sum(size for entry in packs for suffix, size, _ in entry.files if suffix != "parquet")
    yield "packs", f"{len(packs):,}, {units.size(size)}"
    for stage in run_status(run).stages:
        assert stage.complete, f"{stage.stage} is not complete"
    yield "class ids right in images and labels", f"{checks.every_class_id(run):,}"
    blocks = validation_blocks(counts[1], run.config.posttrain.validation_shard)
    if blocks:  # else the test split is small enough for post-training
        assert len(checks.manifest(run, "validate").entries) == len(blocks)
        yield "blocks of the test split, validated", f"{len(blocks):,}"
    activity = run_activity(run, run_status(run).stages, now=datetime.now(UTC))
    for name, part in activity.stages.items():
        hours = part.worker_hours
        yield f"worker time, {name}", units.duration(3600 * hours)


def _until_inside_an_epoch(run: Run, command: Sequence[str]) -> tuple[Pass, Place]:
    """Start a run, and kill all its processes once a checkpoint inside an epoch is stored."""
    with Started(command) as started:
        while not (found := _inside(run)):
            assert started.process.poll() is None, started.said
            time.sleep(POLL_SECONDS)
        started.kill()
    return started.result(), max(found)


def _watched(run: Run, command: Sequence[str]) -> tuple[Pass, set[Place]]:
    """Run a command to its end; return it, and the checkpoints that only it stored."""
    before, seen = _inside(run), set[Place]()
    with Started(command) as started:
        while started.process.poll() is None:
            seen |= _inside(run) - before
            time.sleep(POLL_SECONDS)
    done = started.result()
    assert started.process.returncode == 0, done.said
    return done, seen


def _inside(run: Run) -> set[Place]:
    """Return the places of the stored checkpoints that are inside an epoch."""
    matches = (INSIDE.search(file.path) for file in run.store.files("squeeze/checkpoints"))
    return {(int(match[1]), int(match[2])) for match in matches if match}


class Started:
    """A command as a process group of its own, whose output goes to a file."""

    def __init__(self, command: Sequence[str]) -> None:
        self._began, self._files = time.monotonic(), ExitStack()
        log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed on exit
        self._log = self._files.enter_context(log)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *command],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._watcher = ThreadPoolExecutor(1)
        self._peak = self._watcher.submit(peak_of, self.process)

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        """End what still runs, and keep what it printed."""
        self.kill()
        self._watcher.shutdown()
        self._seconds, self._text = time.monotonic() - self._began, self.said
        self._files.close()

    @property
    def said(self) -> str:
        """Return the output so far."""
        self._log.seek(0)
        return self._log.read()

    def kill(self) -> None:
        """Kill the process, and those that it started in sessions of their own."""
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def result(self) -> Pass:
        """Return the output, the time and the peak memory of the process itself, once it ended."""
        return Pass(self._text, self._seconds, self._peak.result())


def text_of(facts: Facts, *, made: str, server: str) -> str:
    """Return the result as Markdown."""
    places = [f"{batches:,} steps" for _, batches in (facts.killed_at, facts.resumed_at)]
    rows = [
        ("archives in the bucket", made),
        ("until the kill, Prefect and Ray included", units.duration(facts.first.seconds)),
        ("killed after a checkpoint at", places[0]),
        ("first checkpoint of the second driver", places[1]),
        ("the resume, to the end", units.duration(facts.second.seconds)),
        ("peak memory of the second driver's process", units.size(facts.second.peak_bytes)),
        *facts.rows,
    ]
    return "\n".join(
        [
            f"# The path of real images, {datetime.now(UTC):%Y-%m-%d}",
            "",
            f"Command: `{facts.command}` on {hardware()}, torch {torch.__version__}; {server} "
            "on the same machine in place of S3. Written by `python -m tests.rehearsal.real`.",
            "",
            "| what | measured |",
            "| --- | --- |",
            *(f"| {what} | {how} |" for what, how in rows),
            "",
        ]
    )


def main() -> None:
    """Rehearse, print the result, and write it when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--images", type=int, default=IMAGES, help="of each class")
    parser.add_argument("--batch", type=int, default=4096, help="images of a training step")
    parser.add_argument("--every", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--server", choices=sorted(SERVERS), default="moto")
    parser.add_argument("--out", type=Path, help="where to write the result, as Markdown")
    args = parser.parse_args()
    with SERVERS[args.server]() as environment:
        os.environ |= environment
        bucket = f"s3://{BUCKET}"
        open_filesystem(bucket)[0].mkdir(BUCKET)
        began = time.monotonic()
        size = upload(f"{bucket}/source", classes=args.classes, images=args.images)
        took = units.duration(time.monotonic() - began)
        made = f"{args.classes:,} of {args.images} images, {units.size(size)}, written in {took}"
        facts = rehearse(
            f"{bucket}/source",
            f"{bucket}/store",
            classes=args.classes,
            images=args.images,
            batch=args.batch,
            every=args.every,
        )
    text = text_of(facts, made=made, server=args.server)
    print(text)
    if args.out is not None:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
