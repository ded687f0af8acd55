"""Stop a real run, with Prefect and Ray, at random moments.

python -m tests.soak.signals --trials 100 [--first 0] [--seed 0] --out FILE.jsonl
python -m tests.soak.signals --table FILE.jsonl

Each trial appends a line to the file, so that a hundred of them can be made in several parts. Every
trial depends on the seed and on its number alone. A trial takes about 20 seconds on two cores.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from statistics import median
from time import monotonic
from typing import Any

from benchmarks.hardware import hardware
from distill_core.config.load import load_run
from distill_core.storage.store import Store
from tasks.run import create_run
from tests.support.pipeline import execute
from tests.support.stopping import CODES, SMALL, Blow, Driver, Ending, damaged_shards

LATEST_SECONDS = 25.0  # after the start; on an idle machine, a run then ends about there
COLD_EVERY = 4  # one trial in so many begins with an empty database of Prefect
BLOWS = (  # with weights
    (Blow(SIGINT, group=True), 35),
    (Blow(SIGTERM), 30),
    (Blow(SIGKILL), 25),
    (Blow(SIGINT, group=True, again=True), 10),
)


@dataclass(frozen=True)
class Plan:
    """One trial."""

    number: int
    blow: Blow
    second: float  # after the start of the command
    cold: bool


def plan(seed: int, number: int) -> Plan:
    """Return a trial of a seed."""
    chance = random.Random(f"{seed}/{number}")
    blows, weights = zip(*BLOWS, strict=True)
    blow = chance.choices(blows, weights)[0]
    return Plan(number, blow, chance.uniform(0.2, LATEST_SECONDS), number % COLD_EVERY == 0)


def prepare(folder: Path) -> Path:
    """Return a store with dataset and teacher, so that trials reach the later stages early."""
    preset, *overrides = SMALL
    run = create_run(load_run(preset, overrides), Store(str(folder / "prepared")))
    execute(run, "ingest", "squeeze")
    return Path(run.store.url)


def trial(planned: Plan, prepared: Path, folder: Path) -> tuple[Ending, list[str]]:
    """Start a run, hit it, and return how it ended and which committed shards are damaged.

    Args:
        planned: the trial.
        prepared: a store with dataset and teacher.
        folder: for the store and for Prefect's databases; they are kept for later trials.
    """
    store = folder / f"store-{planned.number}"
    shutil.rmtree(store, ignore_errors=True)  # of an attempt that was interrupted
    shutil.copytree(prepared, store)
    home = folder / ("cold" if planned.cold else "warm")
    if planned.cold:
        shutil.rmtree(home, ignore_errors=True)
    command = ["run", *SMALL, "--store", str(store), "--workers", "2"]
    start, driver = monotonic(), Driver(command, home)
    try:
        driver.follow(lambda: monotonic() - start >= planned.second)
        return driver.hit(planned.blow), damaged_shards(Store(str(store)))
    finally:
        driver.kill()
        shutil.rmtree(store)


def facts(planned: Plan, ending: Ending, damaged: Sequence[str]) -> dict[str, Any]:
    """Return the result of a trial as a JSON-able tree."""
    return {
        "trial": planned.number,
        "signal": str(planned.blow),
        "second": round(planned.second, 2),
        "cold database": planned.cold,
        "phase": ending.phase,
        "code": ending.code,
        "expected": ending.in_time or ending.code in CODES[planned.blow.number],
        "driver_seconds": round(ending.driver_seconds, 2),
        "seconds": round(ending.seconds, 2),
        "leftovers": ending.leftovers,
        "damaged": list(damaged),
        "output": ending.output[-2000:],
    }


def table(results: Sequence[Mapping[str, Any]], seed: int) -> str:
    """Return the results as Markdown."""
    hit = [result for result in results if result["code"] != 0]
    rows = [_row("all", hit)]
    for name in ("signal", "phase"):
        kinds = sorted({str(result[name]) for result in hit})
        rows += [_row(kind, [r for r in hit if r[name] == kind]) for kind in kinds]
    left = sum(len(result["leftovers"]) for result in results)
    damaged = sum(len(result["damaged"]) for result in results)
    odd = [result["trial"] for result in results if not result["expected"]]
    return "\n".join(
        (
            f"# Signals at {len(results)} random moments, {datetime.now(UTC):%Y-%m-%d}",
            "",
            f"Command: `python -m tests.soak.signals --trials {len(results)} --seed {seed}` on "
            f"{hardware()}, Prefect {version('prefect')}, Ray {version('ray')}; other work on the "
            "machine. Each trial starts `distill run "
            f"{SMALL[0]}` with tiny overrides and two workers, on a store that has dataset and "
            f"teacher, and hits it between 0.2 and {LATEST_SECONDS:g} s after its start. One trial "
            f"in {COLD_EVERY} begins with an empty database of Prefect. Seconds are counted from "
            "the signal to the end of the driver, and to the end of the last process that it "
            "started, to within about 0.2 s.",
            "",
            "| | trials | driver: median s | largest | last child: median s | largest |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            "| what | measured |",
            "| --- | --- |",
            f"| runs that ended before the signal | {len(results) - len(hit)} |",
            f"| processes left after a minute | {left} |",
            f"| committed shards that do not match their marker | {damaged} |",
            f"| trials with another exit code than 130, 143 or death by the signal | {len(odd)} |",
            "",
        )
    )


def _row(name: str, results: Sequence[Mapping[str, Any]]) -> str:
    cells = [name, str(len(results))]
    for kind in ("driver_seconds", "seconds"):
        seconds = [result[kind] for result in results] or [0.0]
        cells += [f"{median(seconds):.1f}", f"{max(seconds):.1f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Make trials, or print the table of those that were made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="kept between parts; default: a temporary one")
    parser.add_argument("--out", type=Path, help="JSON lines, one for each trial")
    parser.add_argument("--table", type=Path, help="print the table of such a file, and exit")
    options = parser.parse_args()
    signal.signal(SIGTERM, lambda *_: sys.exit(143))  # the trial's driver must not be left running
    if options.table:
        results = [json.loads(line) for line in options.table.read_text().splitlines()]
        print(table(results, options.seed))
        return
    results = []
    with tempfile.TemporaryDirectory(prefix="signals-") as temporary:
        folder = options.folder or Path(temporary)
        prepared = folder / "prepared"
        prepared = prepared if prepared.is_dir() else prepare(folder)
        for number in range(options.first, options.first + options.trials):
            planned = plan(options.seed, number)
            results.append(facts(planned, *trial(planned, prepared, folder)))
            print({k: v for k, v in results[-1].items() if k != "output"}, flush=True)
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps(results[-1]) + "\n")
    print(table(results, options.seed))


if __name__ == "__main__":
    main()
