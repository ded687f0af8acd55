"""The activity on a run, computed from markers and the records of drivers only."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from distill_core.storage.markers import ShardFacts
from distill_core.storage.shard_store import ShardStore
from flows import cli
from flows.runs import shard_selection
from flows.status import status, tables
from flows.status.status import Activity, Claim, RunActivity, RunStatus, run_activity
from tasks.run import Run
from tasks.runs.drivers import DriverRecord, RunningShard, driver_path
from tasks.runs.stage_status import StageStatus
from tasks.stages.names import StageId
from tests.support.fabricate import finished_run

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a finished run without any driver."""
    return finished_run(tmp_path)


def ago(**span: float) -> str:
    """Return a moment before now."""
    return (NOW - timedelta(**span)).isoformat()


def driver(run: Run, name: str, *shards: str, **facts: object) -> DriverRecord:
    """Write the file of a driver at recover that names shards as running."""
    record = DriverRecord(
        id=name,
        host="node",
        pid=7,
        device="cpu",
        started=ago(hours=2),
        updated=ago(seconds=5),
        stage="recover",
        stage_started=ago(hours=2),
        running=tuple(RunningShard("recover", shard, ago(minutes=6)) for shard in shards),
    )
    record = replace(record, **facts)  # type: ignore[arg-type]
    run.store.put(driver_path(run, name), record.to_json())
    return record


def committed(run: Run, key: str, *, minutes_ago: float) -> str:
    """Commit an image shard that took a minute, and return its key."""
    ShardStore(run.store, "recover").commit(
        key,
        shard=key,
        files={"parquet": b"x"},
        facts=ShardFacts(rows=1, classes=1, seconds=60.0, device="cpu"),
        clock=lambda: NOW - timedelta(minutes=minutes_ago),
    )
    return key


def half_done(*keys: str, failed: tuple[str, ...] = ()) -> StageStatus:
    """Return a stage whose shards a to d are missing."""
    return StageStatus(
        StageId("recover"),
        total=4 + len(keys),
        done=len(keys),
        failed={shard: {"attempts": 3, "error": "ValueError: poisoned"} for shard in failed},
        pending=("a", "b", "c", "d"),
        keys=keys,
    )


def activity(run: Run, stage: StageStatus) -> Activity:
    """Return what happens in one stage."""
    return run_activity(run, [stage], now=NOW).stages[str(stage.stage)]


def printed(reached: RunStatus, seen: RunActivity) -> str:
    """Return what `distill status RUN` prints."""
    console = Console(file=io.StringIO(), width=160)
    with console.capture() as captured:
        console.print(tables.details(reached, seen))
    return captured.get()


def test_running_shards_are_those_of_active_drivers_without_a_marker(run: Run) -> None:
    driver(run, "one", "a", "done-since")
    driver(run, "two", "a", "b")
    seen = activity(run, half_done())
    since = ago(minutes=6)
    assert seen.running == (
        Claim("a", "one", since),
        Claim("a", "two", since),
        Claim("b", "two", since),
    )
    assert seen.running_shards == 2
    assert seen.orphaned == ()


def test_orphaned_shards_are_those_of_silent_drivers_only(run: Run) -> None:
    driver(run, "killed", "a", "b", "c", "done-since", updated=ago(seconds=61))
    driver(run, "alive", "b")
    seen = activity(run, half_done(failed=("c",)))
    assert seen.orphaned == ("a",)
    assert [claim.shard for claim in seen.running] == ["b"]


@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_a_driver_that_ended_normally_leaves_no_orphaned_shards(run: Run, state: str) -> None:
    driver(run, "ended", "a", state=state, updated=ago(hours=1))
    assert activity(run, half_done()) == Activity()


def test_shards_of_another_stage_are_not_counted(run: Run) -> None:
    other = (RunningShard("relabel", "a", ago(minutes=1)),)
    driver(run, "one", running=other, stage="relabel")
    assert activity(run, half_done()) == Activity()


def test_the_rate_is_that_of_the_last_hour_and_the_eta_follows_from_it(run: Run) -> None:
    driver(run, "one")
    keys = [committed(run, f"k{n}", minutes_ago=n * 10 + 1) for n in range(8)]  # six within an hour
    seen = activity(run, half_done(*keys))
    assert seen.shards_per_hour == pytest.approx(6)
    assert seen.eta_seconds == pytest.approx(4 / 6 * 3600)


def test_a_rate_begins_with_the_first_driver_at_the_stage(run: Run) -> None:
    driver(run, "one", stage_started=ago(minutes=10))
    driver(run, "two", stage_started=ago(minutes=5))
    keys = [committed(run, f"k{n}", minutes_ago=n) for n in (1, 9, 11)]
    assert activity(run, half_done(*keys)).shards_per_hour == pytest.approx(12)


def test_without_a_driver_at_the_stage_there_is_no_rate(run: Run) -> None:
    keys = [committed(run, "k", minutes_ago=1)]
    driver(run, "elsewhere", stage="posttrain")
    driver(run, "silent", updated=ago(minutes=2))
    seen = activity(run, half_done(*keys))
    assert (seen.shards_per_hour, seen.eta_seconds) == (None, None)


def test_before_the_first_commit_there_is_no_rate(run: Run) -> None:
    driver(run, "one", "a")
    seen = activity(run, half_done())
    assert (seen.shards_per_hour, seen.eta_seconds) == (None, None)


def test_hours_include_active_and_ended_drivers(run: Run) -> None:
    spent = {"recover": 1800.0, "relabel": 999.0}
    driver(run, "one", "a", worker_seconds=spent, gpu_seconds={"recover": 900.0})
    driver(run, "gone", state="stopped", worker_seconds=spent, gpu_seconds={"recover": 450.0})
    # A shard that another run made costs this one nothing.
    seen = run_activity(run, [half_done(committed(run, "k", minutes_ago=5))], now=NOW)
    assert seen.stages["recover"].worker_hours == pytest.approx(1.0)
    assert seen.stages["recover"].gpu_hours == seen.gpu_hours == pytest.approx(0.375)


def test_the_table_lists_the_activity_and_the_relevant_drivers(run: Run) -> None:
    hours = {"recover": 360.0}
    driver(
        run,
        "alive",
        "b",
        workers=2,
        gpus_per_worker=0.5,
        device="cuda",
        gpu_seconds=hours,
        worker_seconds=hours,
        present_seconds={"recover": 600.0},
    )
    driver(run, "killed", "a", updated=ago(minutes=5))
    driver(run, "ended", state="finished")
    stage = half_done(committed(run, "k", minutes_ago=1), failed=("c",))
    seen = run_activity(run, [stage], now=NOW)
    text = printed(RunStatus("tiny", "tiny", (stage,)), seen)
    lines = [line.split("│") for line in text.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in line[1:-1]] for line in lines]
    assert cells[0][:7] == ["recover", "5", "1", "1", "1", "1", "1.0 shards/h"]
    assert cells[0][7:] == ["4 h 00 min", "0.10", "60%", "running"]
    assert cells[1][:3] == ["alive", "node, pid 7", "at work"]
    assert cells[1][6] == "2 x 0.5 GPU"
    assert cells[2][:5] == ["killed", "node, pid 7", "silent for 5 min 00 s", "recover", "a"]
    assert len(cells) == 3


def test_the_json_has_the_promised_keys(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    driver(run, "one")
    monkeypatch.setattr(
        sys, "argv", ["distill", "status", "tiny", "--json", "--store", run.store.url]
    )
    with pytest.raises(SystemExit):
        cli.main()
    tree = json.loads(capsys.readouterr().out)
    assert set(tree) == {
        "version",
        "run",
        "preset",
        "complete",
        "problem",
        "missing",
        "mixed",
        "stages",
        "gpu_hours",
        "drivers",
    }
    assert [stage["stage"] for stage in tree["stages"]] == [
        "ingest",
        "squeeze",
        "recover",
        "relabel",
        "posttrain",
    ]
    for stage in tree["stages"]:
        assert set(stage) == {
            "stage",
            "total",
            "done",
            "complete",
            "failed",
            "missing",
            "drivers",
            "running",
            "orphaned",
            "shards_per_hour",
            "eta_seconds",
            "worker_hours",
            "gpu_hours",
            "busy",
            "requests",
        }
    assert {"id", "host", "pid", "state", "updated", "at_work"} <= set(tree["drivers"][0])


def test_a_stage_without_shards_is_not_shown(run: Run) -> None:
    assert StageId("statistics") not in {stage.stage for stage in status.run_status(run).stages}


def test_a_dry_run_lists_what_would_run_as_text_and_json(run: Run) -> None:
    reached = RunStatus(
        "tiny", "tiny", (half_done("k"), StageStatus(StageId("posttrain"), None, 0))
    )
    known, unknown = shard_selection.intents(run, reached, {"recover": ["b", "a", "z"]})
    assert known.lines() == ["recover: 2 of 5", "  a", "  b"]
    assert unknown.lines() == ["posttrain: 6 by the plan, fewer if the store has some already"]
    assert shard_selection.intents_to_json(run, [known, unknown]) == {
        "run": "tiny",
        "would_run": [
            {"stage": "recover", "count": 2, "total": 5, "shards": ("a", "b")},
            {"stage": "posttrain", "count": 6, "total": None, "shards": None},
        ],
    }


def test_a_run_without_drivers_is_reported_as_such(run: Run) -> None:
    empty = RunActivity(NOW, {"recover": Activity()}, ())
    text = printed(RunStatus("tiny", "tiny", (half_done(),)), empty)
    assert "no driver at work" in text


def test_of_a_dataset_that_is_not_recorded_the_drivers_tell_how_far_it_is(run: Run) -> None:
    """Its parts are known only where it was listed, so the store alone shows neither number."""
    facts = {"stage": "ingest", "stage_started": ago(minutes=60), "stage_total": 40}
    part = RunningShard("ingest", "train-00031", ago(minutes=1))
    driver(run, "a", running=(part,), stage_done=30, stage_done_before=10, **facts)
    lost = RunningShard("ingest", "train-00007", ago(hours=9))
    driver(run, "b", running=(lost,), stage_done=10, updated=ago(hours=8), **facts)
    unknown = StageStatus(StageId("ingest"), total=None, done=0)
    seen = run_activity(run, [unknown], now=NOW)
    (found,) = seen.stages.values()
    assert (found.reported_total, found.reported_done) == (40, 30)
    assert [claim.shard for claim in found.running] == ["train-00031"]
    assert found.orphaned == ("train-00007",)
    assert found.shards_per_hour == pytest.approx(20, rel=0.02)
    assert found.eta_seconds == pytest.approx(1800, rel=0.02)
    reached = RunStatus(run.name, "tiny", (unknown,))
    row = next(line for line in printed(reached, seen).splitlines() if "ingest" in line)
    assert row.split()[3:6:2] == ["40", "30"]
    assert tables.to_json(reached, seen)["stages"][0]["total"] == 40
