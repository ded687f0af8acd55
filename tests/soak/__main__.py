"""Run the soak and print its results.

python -m tests.soak --rate 0.5 [--seed 0] [--driver-kills 3] [--folder FOLDER] [--out FILE]
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.hardware import hardware
from tests.soak.soak import SHARDS, WORKERS, Facts, soak


def table(facts: Facts) -> str:
    """Return the result as Markdown."""
    endings = ", ".join(facts.endings)
    rows = (
        ("shards, actors", f"{facts.shards}, {WORKERS}"),
        ("attempts", f"{facts.attempts}"),
        ("of these killed (SIGKILL)", counted(facts.deaths)),
        ("requests to the store", f"{facts.requests:,}"),
        ("of these spoiled", counted(facts.spoiled)),
        ("attempts of workers that refused", counted(facts.refused)),
        ("outages of the store", outages(facts.outages)),
        ("drivers, and how each ended", f"{len(facts.endings)}: {endings}"),
        ("seconds", f"{facts.seconds:.0f}"),
        ("manifest", "equal to that of a run without faults"),
        ("bytes hashed again", f"{facts.bytes:,}, all as their markers say"),
    )
    return "\n".join(
        (
            f"# Soak at {facts.rate:.0%}, {datetime.now(UTC):%Y-%m-%d}",
            "",
            f"Command: `python -m tests.soak --rate {facts.rate:g} --seed {facts.seed} "
            f"--driver-kills {facts.endings.count('killed')}` on {hardware()}, "
            f"Ray {version('ray')}; one run. Workers without torch, everything else real: Ray "
            "actors, the commit, an S3 server on loopback behind a proxy. "
            f"An attempt is killed before its data, before its marker or after it with probability "
            f"{facts.rate:g}; a request is spoiled with the same. Half as many worker "
            "processes are refused by the store, or lack the data, until they are restarted. "
            "After every 30 to 90 s the store is away for a while.",
            "",
            "| what | measured |",
            "| --- | --- |",
            *(f"| {what} | {how} |" for what, how in rows),
            "",
        )
    )


def outages(seconds: list[float]) -> str:
    """Return how many outages there were, and how long."""
    if not seconds:
        return "none"
    return (
        f"{len(seconds)}, {min(seconds):.0f} to {max(seconds):.0f} s, {sum(seconds):.0f} s in all"
    )


def counted(kinds: dict[str, int]) -> str:
    """Return a total and its parts."""
    parts = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    return f"{sum(kinds.values())} ({parts or 'none'})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=f"Make {SHARDS} shards in spite of everything.")
    parser.add_argument("--rate", type=float, default=0.5, help="share of attempts and requests")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--driver-kills", type=int, default=3, metavar="COUNT")
    parser.add_argument("--folder", type=Path, help="an empty one; default: a temporary one")
    parser.add_argument("--out", type=Path, help="where to write the result, as Markdown")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        found = soak(
            said.folder or Path(temporary),
            rate=said.rate,
            seed=said.seed,
            driver_kills=said.driver_kills,
        )
    print(table(found))
    if said.out is not None:
        said.out.write_text(table(found))
