"""Many jobs that fail on every node, whatever their errors look like, on a healthy cluster."""

from __future__ import annotations

import random

import pytest

from tests.support.cluster.model import Nature, Scenario, Work
from tests.support.cluster.play import culprits, play
from tests.support.cluster.scenarios import HOUR, nodes

ENVIRONMENT: tuple[Nature, ...] = ("missing", "forbidden")
MOST = 35  # attempts of one job: the ceiling, and five nodes that are new to it


def some_bad(kind: Nature, *, jobs: int, bad: int, workers: int, seed: int = 0) -> Scenario:
    """Return a stage in which some jobs fail as soon as they begin."""
    rng = random.Random(seed)
    chosen = set(rng.sample(range(jobs), bad))
    works = tuple(
        Work(HOUR * rng.uniform(0.7, 1.3), nature=kind if n in chosen else "good", after=0.0)
        for n in range(jobs)
    )
    return Scenario(f"{bad} {kind}", nodes(workers), {"recover": works})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ENVIRONMENT)
def test_a_stage_ends_after_a_bounded_number_of_attempts_at_bad_jobs(
    kind: Nature, seed: int
) -> None:
    scenario = some_bad(kind, jobs=44, bad=5, workers=6, seed=seed)
    played = play(scenario)
    assert set(played.failed) == culprits(scenario)
    assert len(played.ledger.committed) == 39
    assert max(played.ledger.attempts.values()) <= MOST
