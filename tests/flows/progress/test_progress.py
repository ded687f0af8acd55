"""Progress: rate and remaining time with a fake clock, limited lines, events as JSON lines."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from distill_core.storage.store import Store
from flows import units
from flows.progress.display import Lines, display
from flows.progress.event_log import EventLog
from flows.progress.followers import Several
from flows.progress.meter import Meter, describe
from tasks.jobs import Receipt
from tasks.run import Run
from tests.support.fabricate import finished_run


class Clock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def receipt(shard: str) -> Receipt:
    """Return the receipt of a shard."""
    return Receipt(f"key-{shard}", shard, seconds=2.0, won=True, rows=3, summary={})


def test_the_meter_counts_parts_of_running_jobs_but_not_earlier_work_as_speed() -> None:
    clock = Clock()
    meter = Meter(8, 4, clock=clock)
    assert describe(meter, "steps") == "4/8 shards  50 %  ETA -"
    clock.now += 10
    meter.advance("a", 50, 100)
    meter.advance("b", 100, 100)
    meter.finish("b")
    assert meter.fraction == pytest.approx(5.5 / 8)
    assert describe(meter, "steps") == "5/8 shards  69 %  15 steps/s  ETA 17 s"


def test_a_restarted_job_loses_its_partial_progress() -> None:
    meter = Meter(2, 0, clock=Clock())
    meter.advance("a", 9, 10)
    meter.restart("a")
    assert meter.fraction == 0


def test_two_shards_of_the_same_name_both_count() -> None:
    clock = Clock()
    meter = Meter(2, 0, clock=clock)
    clock.now += 1
    for _ in range(2):
        meter.advance("a", 10, 10)
        meter.finish("a")
    assert describe(meter, "steps") == "2/2 shards  100 %  20 steps/s  ETA 0.0 s"


def test_lines_come_at_the_interval_and_no_more_often() -> None:
    clock, said = Clock(), list[str]()
    lines = Lines(said.append, clock=clock, interval=5)
    lines.stage_started("recover", 2, 1)
    for second in range(1, 13):
        clock.now = 100.0 + second
        lines.job_progress("recover", "a", second, 24)
    lines.job_finished("recover", receipt("a"))
    lines.stage_finished("recover", 12.0)
    assert said == [
        "recover: started, 2 shards, 1 done before",
        "recover: 1/2 shards  60 %  1.0 steps/s  ETA 19 s",
        "recover: 1/2 shards  71 %  1.0 steps/s  ETA 14 s",
        "recover: 2/2 shards in 12 s",
    ]


def test_retries_and_failures_are_printed_at_once() -> None:
    said = list[str]()
    lines = Lines(said.append, clock=Clock())
    lines.stage_started("recover", 1, 0)
    lines.job_retried("recover", "a", "the actor died")
    lines.job_failed("recover", "a", "ValueError: no")
    assert said[1:] == [
        "recover: a: trying again: the actor died",
        "recover: a: FAILED: ValueError: no",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_both_displays_show_counts_rate_and_failures(terminal: bool) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=160, color_system=None)
    with display(console) as shown:
        shown.stage_started("recover", 2, 0)
        shown.stage_notice("recover", "[red]odd[/red] input")
        shown.job_progress("recover", "a", 5, 10)
        shown.job_failed("recover", "b", "[red]odd[/red] name")
        shown.job_finished("recover", receipt("a"))
        shown.stage_finished("recover", 3.0)
    assert "1/2 shards in 3.0 s" in stream.getvalue()
    assert "[red]odd[/red] name" in stream.getvalue()
    assert "recover: [red]odd[/red] input\n" in stream.getvalue()


def test_every_event_reaches_every_observer() -> None:
    first, second = list[str](), list[str]()
    both = Several(*(Lines(said.append, clock=Clock()) for said in (first, second)))
    both.stage_started("recover", 1, 0)
    both.stage_notice("recover", "odd")
    both.job_progress("recover", "a", 1, 2)
    both.job_retried("recover", "a", "why")
    both.job_failed("recover", "a", "why")
    both.job_finished("recover", receipt("a"))
    both.stage_finished("recover", 1.0)
    assert first == second
    assert len(first) == 5


def test_events_are_numbered_parts_of_json_lines(tmp_path: Path) -> None:
    config = finished_run(tmp_path).config
    run = Run("noted", config, Store(str(tmp_path / "events")))
    log = EventLog(run, driver="d", clock=lambda: datetime(2030, 1, 2, tzinfo=UTC))
    log.stage_started("recover", 2, 0)
    log.job_progress("recover", "a", 1, 2)
    log.job_finished("recover", receipt("a"))
    log.stage_notice("recover", "odd")
    log.stage_finished("recover", 1.0)
    log.job_failed("relabel", "b", "no")
    log.flush()
    log.flush()
    folder = run.path("events")
    assert run.store.names(folder) == ("d-0000.jsonl", "d-0001.jsonl")
    lines = run.store.read(f"{folder}/d-0000.jsonl").decode().splitlines()
    events = [json.loads(line) for line in lines]
    kinds = ["stage_started", "job_finished", "stage_notice", "stage_finished", "end_of_part"]
    assert [event["event"] for event in events] == kinds
    assert events[2]["text"] == "odd"
    assert events[1]["at"] == "2030-01-02T00:00:00.000+00:00"
    assert (events[1]["shard"], events[1]["won"]) == ("a", True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (59.4, "59 s"), (245, "4 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations_are_formatted_for_people(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (516, "516 B"), (1234567, "1.23 MB"), (2.86e12, "2.86 TB")]
)
def test_bytes_are_formatted_for_people(count: float, text: str) -> None:
    assert units.size(count) == text


@pytest.mark.parametrize(
    ("speed", "text"),
    [
        (120.4, "120 steps/s"),
        (1.25, "1.2 steps/s"),
        (0.07, "4.2 steps/min"),
        (0.001, "3.6 steps/h"),
    ],
)
def test_rates_are_formatted_for_people(speed: float, text: str) -> None:
    assert units.rate(speed, "steps") == text
