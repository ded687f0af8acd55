"""A command that worked on a whole run does not end with 0 while something is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill_core.errors import RunIncomplete
from flows.commands.run import proceed
from flows.runs import pipeline, redistill
from flows.runs.redistill import Outcome
from tasks.execution import Execution
from tasks.run import Run
from tests.support.cli import Distill
from tests.support.fabricate import finished_run, marker_path

LINE = (
    "distill: runs/tiny: incomplete, although every stage was run: posttrain has 5 of 6 shards. "
    "Run `distill resume tiny`; if this repeats, check the store with "
    "`distill doctor --store {url}`.\n"
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a run that lacks a shard, on a store that does not show what a pass writes."""
    made = finished_run(tmp_path)
    made.store.delete(marker_path(made, "posttrain"))
    monkeypatch.setattr(pipeline, "run_local", lambda *_: None)
    return made


def commands(run: Run) -> dict[str, tuple[str, ...]]:
    """Return the commands that work on a whole run."""
    preset = str(Path(run.store.url).parent / "tiny.yaml")
    return {"run": ("run", preset, "--name", "tiny"), "resume": ("resume", "tiny")}


@pytest.mark.parametrize("command", ["run", "resume"])
def test_an_incomplete_run_ends_with_1_and_one_line(
    distill: Distill, run: Run, command: str
) -> None:
    output = distill(*commands(run)[command], "--local", "--store", run.store.url)
    assert output.code == 1
    assert output.err == LINE.format(url=run.store.url)


def test_the_json_of_an_incomplete_run_is_printed_before_the_error(
    distill: Distill, run: Run
) -> None:
    output = distill("resume", "tiny", "--json", "--local", "--store", run.store.url)
    assert output.code == 1
    assert json.loads(output.out)["stages"][-1]["done"] == 5
    assert len(output.err.splitlines()) == 1


def test_a_pass_over_selected_shards_may_leave_others(run: Run) -> None:
    execution = Execution(store=run.store.url, local=True)
    assert proceed(run, execution, {"recover": ["c00000-00002_i000-001"]}) == run
    with pytest.raises(RunIncomplete):
        proceed(run, execution, {})


def test_an_incomplete_version_ends_with_1_and_one_line(
    distill: Distill, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Outcome:
        return Outcome(run, changed=True, diff=None)

    monkeypatch.setattr(redistill, "redistill", interrupted)
    words = ("redistill", commands(run)["run"][1], "--local")
    output = distill(*words, "--store", run.store.url)
    assert output.code == 1
    assert output.err == LINE.format(url=run.store.url)
