"""Events that travel as lines show the same progress as the events themselves."""

from __future__ import annotations

from flows.progress.display import Lines
from flows.progress.event_lines import EventClock, EventLines, event_line, event_of, replay
from tasks.jobs import Receipt
from tasks.observer import Observer


def play(observer: Observer, tick: float, clock: EventClock) -> None:
    """Run two shards of a stage, one of which is tried again, and lose a third one."""
    observer.stage_started("recover", 4, 1)
    observer.stage_notice("recover", "the cluster has room for 1 of 2 workers")
    for step in range(1, 5):
        clock.now += tick
        observer.job_progress("recover", "a", step, 4)
        observer.job_progress("recover", "b", step, 8)
    observer.job_retried("recover", "b", "its worker was lost")
    clock.now += tick
    observer.job_finished("recover", Receipt("key", "a", seconds=4 * tick, rows=10))
    observer.job_failed("recover", "c", "no space left")
    clock.now += tick
    observer.job_progress("recover", "b", 8, 8)
    observer.job_finished("recover", Receipt("key", "b", seconds=2 * tick, rows=10))
    observer.stage_finished("recover", 6 * tick)


def test_lines_that_are_replayed_show_what_the_events_show() -> None:
    direct: list[str] = []
    there, here = EventClock(), EventClock()
    play(Lines(direct.append, clock=there), 60.0, there)

    log: list[str] = []
    there = EventClock()
    play(EventLines(log.append, clock=there, interval=0.0), 60.0, there)
    replayed: list[str] = []
    observer = Lines(replayed.append, clock=here)
    for event in map(event_of, log):
        assert event is not None
        assert replay(event, observer, here)
    assert len(direct) > 6
    assert replayed == direct


def test_progress_of_many_shards_is_one_line_now_and_then() -> None:
    clock, log = EventClock(), list[str]()
    observer = EventLines(log.append, clock=clock, interval=20.0)
    observer.stage_started("recover", 64, 0)
    for second in range(60):
        clock.now = float(second)
        for shard in range(64):
            observer.job_progress("recover", str(shard), second, 60)
    assert len(log) == 3
    assert len(event_of(log[-1])["shards"]) == 64  # type: ignore[index]


def test_other_lines_are_no_events() -> None:
    for line in ("", "recover: started", "distill-event: ", "distill-event: []", "{}"):
        assert event_of(line) is None
    line = event_line("stage_started", stage="recover", total=3)
    assert event_of(line[:-2]) is None


def test_an_event_of_a_later_version_is_left_alone() -> None:
    lines: list[str] = []
    observer = Lines(lines.append)
    assert not replay({"event": "coffee", "at": 3.0}, observer, EventClock())
    assert lines == []
