"""Many jobs that fail on every node, whatever their errors look like, on a healthy cluster."""

from __future__ import annotations

import random

import pytest

from distill_core.errors import StorageError, StorageRefused
from tasks.pools.dispatch import dispatch
from tests.support.cluster.model import Illness, Nature, Node, Scenario, Span, Work
from tests.support.cluster.play import culprits, jobs_of, play
from tests.support.cluster.records import Clock, Ledger
from tests.support.cluster.scenarios import HOUR, MINUTE, nodes
from tests.support.cluster.world import Cluster

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


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", ENVIRONMENT)
def test_a_healthy_cluster_finishes_a_stage_of_which_a_fifth_is_bad(
    kind: Nature, workers: int
) -> None:
    for seed in range(3):
        scenario = some_bad(kind, jobs=219, bad=44, workers=workers, seed=seed)
        played = play(scenario)
        assert set(played.failed) == culprits(scenario)
        assert len(played.ledger.committed) == 175
        assert max(played.ledger.attempts.values()) <= MOST


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("first", [0, 20])
def test_bad_jobs_next_to_each_other_do_not_end_a_stage(first: int, workers: int) -> None:
    bad = range(first, first + 20)
    works = tuple(
        Work(HOUR, nature="missing" if n in bad else "good", after=0.0) for n in range(100)
    )
    played = play(Scenario("a folder is gone", nodes(workers), {"recover": works}))
    assert len(played.failed) == 20
    assert len(played.ledger.committed) == 80


@pytest.mark.parametrize("workers", [1, 2, 8, 64])
def test_credentials_that_expire_everywhere_in_the_middle_of_a_stage_end_it(workers: int) -> None:
    ill = (Illness(Span(2.5 * HOUR), "refused"),)
    every = tuple(Node(f"n{n}", ill=ill) for n in range(workers))
    works = (Work(HOUR),) * max(30, 8 * workers)
    jobs, truth = jobs_of("recover", works)
    clock, ledger = Clock(), Ledger()
    cluster = Cluster(Scenario("expired", every, {}), truth, clock, ledger)
    with pytest.raises(
        StorageRefused, match=r"no worker can go on .* Credentials expired"
    ) as ended:
        dispatch(jobs, cluster, stage="recover", clock=clock)
    assert not ended.value.retryable
    assert len(ledger.committed) == 2 * workers
    assert ledger.failures.total() <= 20 + 4 * workers
    assert clock.now < 4.5 * HOUR


@pytest.mark.parametrize("workers", [1, 3, 8])
@pytest.mark.parametrize("bad", [0, 20])
def test_a_job_whose_long_attempts_all_meet_an_outage_is_not_tried_for_ever(
    workers: int, bad: int
) -> None:
    works = (
        *(Work(MINUTE, nature="missing" if n < bad else "good", after=0.0) for n in range(100)),
        Work(1.4 * HOUR, nature="unanswered", after=1.0),
    )
    scenario = Scenario("time-outs", nodes(workers), {"recover": works}, keeps_results=False)
    with pytest.raises(StorageError, match=r"nothing succeeded for .* s\. The last error"):
        play(scenario)
