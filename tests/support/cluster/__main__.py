"""Print the table of scenarios for docs/reliability.md: python -m tests.support.cluster"""

from __future__ import annotations

from tests.support.cluster.play import Played, play
from tests.support.cluster.scenarios import HOUR, NAMED, random_scenario

RANDOM = 1000
LARGE = 10  # jobs for each worker


def row(name: str, before: str, played: Played) -> str:
    """Return one line of the table."""
    computed = played.ledger.computed
    waste = f"{played.wasted / HOUR:.1f} h of {computed / HOUR:.0f} h"
    given_up = f"{len(played.failed)} given up" if played.failed else "complete"
    return (
        f"| {name} | {before} | {given_up} | {waste} | {played.taken / HOUR:.1f} h | "
        f"{100 * max(0.0, played.over_best):.1f} % |"
    )


def large_stages(played: list[Played]) -> str:
    """Return a line on the stages whose time does not depend on the length of single jobs."""
    times = sorted(
        time.taken / time.best - 1
        for one in played
        for time in one.times.values()
        if time.jobs >= LARGE * time.workers
    )
    within = sum(over <= 0.1 for over in times) / len(times)
    return (
        f"{len(times)} stages with {LARGE} or more jobs for each worker: {100 * within:.0f} % "
        f"within 10 % of the best time, median {100 * times[len(times) // 2]:.1f} % over it."
    )


def main() -> None:
    """Print the table, then a line on random scenarios."""
    print("| scenario | before | now | wasted work | time | over the best |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, named in NAMED.items():
        print(row(name, named.before, play(named.scenario)))
    played = [play(random_scenario(seed)) for seed in range(RANDOM)]
    computed = sum(one.ledger.computed for one in played)
    wasted = sum(one.wasted for one in played)
    print(f"\n{large_stages(played)}")
    print(f"{RANDOM} random scenarios: {100 * wasted / computed:.1f} % of the work was wasted,")
    print(f"{sum(one.ledger.discarded for one in played):.0f} s of it by the dispatcher.")


if __name__ == "__main__":
    main()
