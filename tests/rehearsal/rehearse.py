"""The rehearsal: a run through Prefect and Ray, a second pass, and a pass after losses."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch

from benchmarks.hardware import hardware
from distill_core.config.load import load_run
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from flows.estimate.workload import plan_run
from tasks.run import Run, default_name
from tests.rehearsal import checks

PRESET = "rehearsal-21k"
WORKERS = 2
BYTES_TOLERANCE = 0.15  # of what `distill plan` predicts
LOST = 7  # markers that are deleted
Stamps = dict[Path, int]  # file -> time of its last change, in nanoseconds


@dataclass(frozen=True)
class Pass:
    """One command: how long it took, and how much memory its own process held at most."""

    said: str
    seconds: float
    peak_bytes: int


@dataclass
class Facts:
    """The results of a rehearsal."""

    run: Run
    command: str
    first: Pass
    again: Pass
    healed: Pass
    rows: list[tuple[str, str]] = field(default_factory=list)


def rehearse(store: Path, overrides: Sequence[str] = ()) -> Facts:
    """Run and check everything; raises AssertionError where a check fails.

    Args:
        store: an empty folder.
        overrides: changes to the preset.
    """
    torch.set_num_threads(1)
    config = load_run(PRESET, overrides)
    run = Run(default_name(config), config, Store(str(store)))
    command = ("run", PRESET, *overrides, "--store", str(store), "--workers", str(WORKERS))
    first = distill(*command)
    facts = Facts(run, f"distill {' '.join(command)}", first, first, first)
    facts.rows = [
        ("class shards", str(len(checks.manifest(run, "recover").entries))),
        ("class ids right in images and labels", f"{checks.every_class_id(run):,}"),
        ("images whose labels were made again", str(checks.labels_made_again(run))),
        ("waiting between shards, recover", _percent(checks.idle_share(run, "recover", workers=2))),
    ]
    facts.rows += _prediction(run)
    before = stamps(store)
    facts.again = distill(*command)
    assert stamps(store) == before, "a second run touched something"
    facts.healed = _heal(run, store)
    return facts


def _prediction(run: Run) -> list[tuple[str, str]]:
    """Compare the prediction of `distill plan` with what was written."""
    plan, sets = plan_run(run.config), ("", ".random_real")
    rows = []
    for stage, bytes_ in (("recover", plan.image_bytes), ("relabel", plan.label_bytes)):
        found = [checks.manifest(run, stage + name) for name in sets[: plan.image_sets]]
        files = [file for one in found for entry in one.entries for file in entry.files]
        share = bytes_ / sum(size for _, size, _ in files)
        assert abs(share - 1) < BYTES_TOLERANCE, f"{stage}: predicted {share:.2f} of what it wrote"
        rows.append((f"bytes of {stage}, predicted / written", f"{share:.3f}"))
    return rows


def _heal(run: Run, store: Path) -> Pass:
    """Delete some markers; a resume must make those shards, with the same bytes, and no other."""
    entries = checks.manifest(run, "recover").entries
    lost = [entries[n * len(entries) // LOST].key for n in range(LOST)]
    shard_store = ShardStore(run.store, "recover")
    for key in lost:
        run.store.delete(shard_store.marker_path(key))
    before = stamps(store / "recover" / "_done")
    done = distill("resume", run.name, "--store", str(store), "--workers", str(WORKERS))
    after = stamps(store / "recover" / "_done")
    made = {path.stem for path in after.keys() - before.keys()}
    assert made == set(lost), f"{len(made)} shards ran, {LOST} expected"
    assert {path: after[path] for path in before} == before, "a resume touched what was done"
    assert checks.manifest(run, "recover").entries == entries, "other bytes than before"
    return done


def distill(*arguments: str) -> Pass:
    """Run the command line as a process of its own; it must succeed."""
    began = time.monotonic()
    command = [sys.executable, "-m", "flows.cli", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with ThreadPoolExecutor(1) as watcher:
        watched = watcher.submit(peak_of, process)
        said, _ = process.communicate()
        assert process.returncode == 0, said
    return Pass(said, time.monotonic() - began, watched.result())


def peak_of(process: subprocess.Popen[str]) -> int:
    """Return the peak memory of a process without its children, in bytes, when it ends.

    The resource usage returned by `wait` would include the children that it waited for.
    """
    peak, status = 0, psutil.Process(process.pid)
    with suppress(psutil.NoSuchProcess):
        while process.poll() is None:
            peak = max(peak, status.memory_info().rss)
            time.sleep(0.2)
    return peak


def stamps(folder: Path) -> Stamps:
    """Return when each file below a folder was changed."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def write(facts: Facts, out: Path | None) -> None:
    """Print the result as Markdown, and keep it if there is a place for it."""
    text = "\n".join(_lines(facts)) + "\n"
    print(text)
    if out is not None:
        out.write_text(text)


def _lines(facts: Facts) -> list[str]:
    rows = [
        ("whole command, Prefect and Ray included", _minutes(facts.first.seconds)),
        ("peak memory of the driver's process", f"{facts.first.peak_bytes / 1e6:,.0f} MB"),
        *facts.rows,
        ("the same command again", f"{_minutes(facts.again.seconds)}, nothing touched"),
        (
            f"resume after {LOST} markers were deleted",
            f"{_minutes(facts.healed.seconds)}, {LOST} shards ran",
        ),
    ]
    return [
        f"# {PRESET}, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"Command: `{facts.command}` on {hardware()}, torch {torch.__version__}; seed "
        f"{facts.run.config.seed}, one run. Written by `python -m tests.rehearsal`.",
        "",
        "| what | measured |",
        "| --- | --- |",
        *(f"| {what} | {how} |" for what, how in rows),
        "",
        "```",
        *(line.rstrip() for line in facts.first.said.splitlines() if _is_kept(line)),
        "```",
    ]


def _is_kept(line: str) -> bool:
    """Leave out intermediate progress, and the report's address on the machine that ran it."""
    return "shards  " not in line and not line.startswith("report:")


def _minutes(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
