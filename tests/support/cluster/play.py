"""Runs the stages of a scenario with the real dispatcher, and measures what faults cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.execution import RetryPolicy
from tasks.jobs import Job
from tasks.pools.dispatch import dispatch
from tasks.pools.failures import Failure
from tests.support.cluster.bounds import Demand, allowed_seconds, best_seconds
from tests.support.cluster.model import Scenario, Work
from tests.support.cluster.records import Clock, Ledger
from tests.support.cluster.world import Cluster

FAULTY = ("bad", "missing", "forbidden", "poison", "huge")  # jobs that fail on every node
TICK = 1e9  # virtual time needs no heartbeat


@dataclass
class StageTime:
    """The time of one stage; seconds."""

    taken: float
    best: float
    allowed: float
    jobs: int
    workers: int


@dataclass
class Played:
    """The outcome of a scenario."""

    ledger: Ledger
    failed: dict[str, Failure] = field(default_factory=dict)  # by shard
    times: dict[str, StageTime] = field(default_factory=dict)  # by stage
    losses: int = 0

    @property
    def taken(self) -> float:
        """Return the seconds of all stages."""
        return sum(time.taken for time in self.times.values())

    @property
    def over_best(self) -> float:
        """Return by which share the stages took longer than the best time."""
        return self.taken / sum(time.best for time in self.times.values()) - 1

    @property
    def wasted(self) -> float:
        """Return the seconds of work that were computed in vain."""
        return self.ledger.in_flight + self.ledger.discarded


def jobs_of(stage: str, works: tuple[Work, ...]) -> tuple[list[Job[Any]], dict[str, Work]]:
    """Return jobs with made-up keys, and the truth about each."""
    jobs = [Job(f"{stage}-{n}", f"{stage}-{n}", None) for n in range(len(works))]
    return jobs, {job.key: work for job, work in zip(jobs, works, strict=True)}


def play(scenario: Scenario) -> Played:
    """Run every stage of a scenario; raises what ends a stage."""
    clock, played = Clock(), Played(Ledger())
    for stage, works in scenario.stages.items():
        jobs, truth = jobs_of(stage, works)
        play_stage(scenario, stage, jobs, truth, clock, played)
    return played


def play_stage(
    scenario: Scenario,
    stage: str,
    jobs: list[Job[Any]],
    truth: Mapping[str, Work],
    clock: Clock,
    played: Played,
    on_commit: Callable[[Job[Any]], None] = lambda job: None,
) -> None:
    """Run one stage, and add its outcome."""
    ledger, start = played.ledger, clock.now
    computed = ledger.computed
    cluster = Cluster(scenario, dict(truth), clock, ledger, on_commit)
    policy = RetryPolicy(
        tick_seconds=TICK, job_timeout_seconds=scenario.deadline, **scenario.policy
    )
    result = dispatch(jobs, cluster, policy=policy, stage=stage, clock=clock)
    played.failed |= result.failed
    played.losses += result.losses
    done = [work for key, work in truth.items() if key in ledger.committed]
    useful = sum(work.seconds for work in done)
    attempts = [
        work.seconds - ledger.saved.get(key, 0.0)
        for key, work in truth.items()
        if key in ledger.committed
    ]
    extra = max(0.0, ledger.computed - computed - useful)
    shortest, longest = min(attempts, default=1.0) or 1.0, max(attempts, default=0.0)
    demand = Demand(start, done, shortest, longest, extra)
    late = sum(time >= ledger.last_first_attempt for time in ledger.interruptions)
    best = best_seconds(scenario, demand)
    allowed = allowed_seconds(scenario, demand, best=best, late_faults=late)
    played.times[stage] = StageTime(clock.now - start, best, allowed, len(jobs), scenario.workers)


def culprits(scenario: Scenario) -> set[str]:
    """Return the names of the jobs that fail on every node, however often they are tried."""
    return {
        f"{stage}-{number}"
        for stage, works in scenario.stages.items()
        for number, work in enumerate(works)
        if work.nature in FAULTY and work.times > 1000
    }
