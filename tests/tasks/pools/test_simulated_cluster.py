"""The dispatcher on a simulated cluster: no fault costs more than what it hit."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from distill_core.config.load import load_run
from distill_core.storage.manifest import load_manifest
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.execution import Execution
from tasks.pools.provider import PoolProvider
from tasks.run import Run, create_run
from tasks.runs.failure_records import keep_failures
from tasks.runs.finalise import close_stage
from tasks.runs.run_stage import run_stage
from tasks.runs.stage_status import stage_status
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tests.support.cluster.model import Illness, Node, Scenario, Span, Work
from tests.support.cluster.play import Played, culprits, play, play_stage
from tests.support.cluster.records import Clock, Ledger
from tests.support.cluster.scenarios import HOUR, MINUTE, NAMED, nodes, random_scenario
from tests.support.fault_runs import Watch
from tests.support.planned import commit, finish


def check(scenario: Scenario, played: Played) -> None:
    """Assert what holds in every scenario that leaves a node that works."""
    ledger = played.ledger
    assert set(played.failed) == culprits(scenario)
    assert len(ledger.committed) + len(played.failed) == sum(map(len, scenario.stages.values()))
    assert ledger.begun_after_commit == []
    assert ledger.discarded == 0.0  # whatever was wasted was in flight when a fault hit it
    assert ledger.computed == pytest.approx(ledger.useful + ledger.in_flight)
    late = {name: time for name, time in played.times.items() if time.taken > time.allowed}
    assert late == {}


@pytest.mark.parametrize("name", NAMED)
def test_a_named_scenario_ends_complete_without_waste_in_good_time(name: str) -> None:
    scenario = NAMED[name].scenario
    played = play(scenario)
    check(scenario, played)
    assert played.over_best < 0.1


@pytest.mark.parametrize("first", range(0, 100, 10))
def test_random_scenarios_end_complete_without_waste_in_good_time(first: int) -> None:
    for seed in range(first, first + 10):
        scenario = random_scenario(seed)
        check(scenario, play(scenario))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 1100, 50))
def test_a_thousand_random_scenarios(first: int) -> None:
    for seed in range(first, first + 50):
        scenario = random_scenario(seed)
        check(scenario, play(scenario))


def test_a_job_is_not_given_up_for_failures_on_a_node_that_was_sick_at_that_time() -> None:
    # A shard fails twice on a node with another copy of the data, which is repaired later, and once
    # on one that computes NaN: three failures on two nodes that are believed otherwise.
    scenario = random_scenario(302)
    check(scenario, play(scenario))


def test_a_sick_node_is_tried_ever_more_rarely() -> None:
    ill = Node("sick", workers=8, ill=(Illness(Span(0.0), "unmounted"),))
    shards = {"recover": (Work(HOUR),) * 200}
    played = play(Scenario("a sick node of eight workers", (ill, *nodes(4)), shards))
    assert played.times["recover"].taken >= 50 * HOUR
    assert played.ledger.failures["sick"] < 8 + 12 + 50 * 60 / 2.5  # one probe in 2.5 to 5 minutes


def test_results_that_could_not_be_committed_are_committed_later_and_not_made_again() -> None:
    played = play(NAMED["the store is away for five minutes"].scenario)
    assert played.wasted == 0.0
    assert max(played.ledger.attempts.values()) > 3


def taught_run(store: str, *overrides: str) -> Run:
    """Return a run whose dataset is ingested and whose teacher is a few bytes."""
    run = create_run(load_run("rehearsal-21k", overrides), Store(store))
    execution = Execution(store=store, local=True)
    with PoolProvider(execution) as pools:
        run_stage(run, StageId("ingest"), execution=execution, observer=Watch(), pools=pools)
    finish(run, "squeeze")
    return run


def play_run(run: Run, scenario: Scenario, *, seconds: float) -> Played:
    """Play the stages of a planned run; each commit writes a real marker."""
    clock, played = Clock(), Played(Ledger())
    for kind in ("recover", "relabel", "posttrain"):
        stage = StageId(kind)
        parts = JobPlan(run).jobs(stage)
        jobs = [job for part in parts.values() for job in part]
        truth = {job.key: Work(seconds) for job in jobs}
        mark = partial(commit, run, kind)
        play_stage(scenario, kind, jobs, truth, clock, played, on_commit=mark)
        keep_failures(run, stage, played.failed)
        assert close_stage(run, stage, parts, allow_missing=0)
        assert stage_status(run, stage).complete
        assert set(ShardStore(run.store, kind).done()) == {job.key for job in jobs}
    return played


FAULTS = Scenario(
    "everything at once",
    (
        Node("a", kills=(2 * HOUR,)),
        Node("spot", workers=2, away=(Span(HOUR, 1.5 * HOUR), Span(3 * HOUR, 3.2 * HOUR))),
        Node("gone", away=(Span(2.2 * HOUR),)),
        Node("sick", ill=(Illness(Span(0.0, 4 * HOUR), "refused"),)),
        Node("late", away=(Span(0.0, HOUR),)),
    ),
    {},
    outages=(Span(1.7 * HOUR, 1.7 * HOUR + 5 * MINUTE),),
)


def test_the_real_plan_is_carried_out_and_closed_in_spite_of_every_fault(tmp_path: Path) -> None:
    run = taught_run(str(tmp_path / "store"), "data.num_classes=1200")
    played = play_run(run, FAULTS, seconds=0.8 * HOUR)
    assert played.failed == {}
    assert played.ledger.begun_after_commit == []
    assert played.ledger.discarded == 0.0
    manifest = load_manifest(run.store, run.name, "recover")
    assert manifest is not None
    assert len(manifest.entries) == 12


@pytest.mark.slow
def test_the_real_plan_of_21841_classes_is_carried_out_and_closed(tmp_path: Path) -> None:
    run = taught_run(str(tmp_path / "store"), "ipc=2", "recover.ipc_range=1")
    played = play_run(run, FAULTS, seconds=0.8 * HOUR)
    assert played.failed == {}
    assert played.ledger.begun_after_commit == []
    assert played.ledger.discarded == 0.0
