"""A job is followed to its end through outages, and stopped by whoever gives up on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from distill_core.errors import ClusterError
from tasks.submission.follow import Following
from tasks.submission.jobs_api import JobsApi
from tasks.submission.submission import Submission, submit_once
from tests.support.jobs_server import JobsServer

OUTAGE = 60.0


@dataclass
class Play:
    """Follows a job of a server; each pause is the next step of a script."""

    server: JobsServer
    steps: list[Callable[[], object]] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        submission = Submission("weekly", "s3://bucket/runs", "exec true")
        self.id = submit_once(JobsApi(self.server.url), submission, lambda text: None)
        self.following = Following(
            JobsApi(self.server.url),
            self.id,
            show=self.shown.append,
            notify=self.said.append,
            outage_seconds=OUTAGE,
            clock=lambda: self.now,
            sleep=self.pause,
        )

    def pause(self, seconds: float) -> None:
        self.now += seconds
        if self.steps:
            self.steps.pop(0)()

    def write(self, text: str) -> None:
        self.server.logs[self.id] = self.server.logs.get(self.id, "") + text

    def away(self, is_away: bool) -> None:
        self.server.is_away = is_away


def test_each_line_of_the_log_is_shown_once_across_an_outage(server: JobsServer) -> None:
    play = Play(server)
    play.steps = [
        lambda: play.write("first\nsec"),
        lambda: play.write("ond\n"),
        lambda: play.away(True),
        lambda: play.write("third\n"),
        lambda: play.away(False),
        lambda: server.end(play.id, "SUCCEEDED", code=0, log="last, without an end"),
    ]
    assert play.following.wait().status == "SUCCEEDED"
    assert play.shown == ["first", "second", "third", "last, without an end"]
    assert len(play.said) == 1
    assert f"The job {play.id} is not affected; waiting" in play.said[0]
    assert server.stopped == []


def test_an_outage_that_is_too_long_leaves_the_job_alone(server: JobsServer) -> None:
    play = Play(server)
    server.is_away = True
    with pytest.raises(ClusterError, match=rf"60 s .*{play.id} is not affected; run the command"):
        play.following.wait()
    assert play.now >= OUTAGE
    assert server.stopped == []


def test_a_head_that_was_replaced_has_lost_the_job(server: JobsServer) -> None:
    play = Play(server)
    play.steps = [lambda: server.jobs.clear()]
    with pytest.raises(ClusterError, match=r"does not know it any more.*run the command again"):
        play.following.wait()


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_a_signal_stops_the_job(server: JobsServer, signal: type[BaseException]) -> None:
    play = Play(server)

    def interrupt() -> None:
        raise signal

    play.steps = [interrupt]
    with pytest.raises(signal):
        play.following.wait()
    assert server.stopped == [play.id]
    assert play.said == [f"the job {play.id} has been stopped."]


def test_a_job_that_cannot_be_stopped_in_time_is_named(server: JobsServer) -> None:
    play = Play(server)
    server.is_away = True
    assert not play.following.stop()
    assert f"Stop it with `ray job stop {play.id} --address {server.url}`" in play.said[0]


def test_a_job_is_stopped_after_a_short_outage(server: JobsServer) -> None:
    play = Play(server)
    server.is_away = True
    play.steps = [lambda: play.away(False)]
    assert play.following.stop()
    assert server.stopped == [play.id]


def test_a_long_log_is_read_less_often(server: JobsServer) -> None:
    play, reads = Play(server), []
    play.write("x" * 1_000_000 + "\n")
    log = play.following.api.log
    play.following.api.log = lambda id: (reads.append(play.now), log(id))[1]  # type: ignore[method-assign]
    play.steps = [lambda: None] * 9 + [lambda: server.end(play.id, "SUCCEEDED", code=0)]
    play.following.wait()
    assert reads == [0.0, 12.0, 20.0]  # not nearer than 10 s, until the end
