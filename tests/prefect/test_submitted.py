"""What the driver of a job reports appears in Prefect as if the flow run had done the work."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from distill_core.config.load import load_run
from distill_core.errors import ShardsFailed
from flows.orchestration import artifacts, submitted
from flows.progress.event_lines import EventLines, event_line
from flows.runs.request import RunRequest
from flows.runs.submit import failure_line
from tasks.execution import Placement
from tasks.jobs import Receipt
from tests.support.jobs_server import Job, JobsServer, jobs_server


class Shown:
    """An API of Prefect that keeps what it is given."""

    def __init__(self) -> None:
        self.percent: list[float] = []
        self.created: dict[str, Any] = {}

    def progress(self, percent: float, *, key: str, description: str) -> object:
        """Take a new artifact."""
        self.created[key] = description
        return uuid4()

    def update(self, artifact: object, percent: float, text: str) -> None:
        """Take an update."""
        self.percent.append(percent)

    def table(self, rows: list[dict[str, str]], *, key: str, description: str) -> None:
        """Take a table."""
        self.created[key] = rows

    def markdown(self, text: str, *, key: str, description: str) -> None:
        """Take a text."""
        self.created[key] = text


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Return an API in Prefect's place."""
    made = Shown()
    monkeypatch.setattr(artifacts, "create_progress_artifact", made.progress)
    monkeypatch.setattr(artifacts, "update_progress_artifact", made.update)
    monkeypatch.setattr(artifacts, "create_table_artifact", made.table)
    monkeypatch.setattr(artifacts, "create_markdown_artifact", made.markdown)
    for module in (artifacts, submitted):
        monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("flow run"))
    return made


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobsServer]:
    """Serve a Jobs API that wants no token."""
    with jobs_server(monkeypatch) as made:
        yield made


def follow(server: JobsServer, log: list[str], status: str, code: int) -> None:
    """Follow a job that ends at once with a log."""

    def end(job: Job) -> None:
        server.end(job["submission_id"], status, code=code, log="\n".join(log))

    server.on_submit = end
    placement = Placement(submit=server.url)
    config = load_run("digits-demo")
    place = {"store": "s3://bucket/runs", "execution": placement, "events": True}
    submitted.follow_job(RunRequest(command="run", run="weekly", config=config, **place))


def test_progress_warnings_and_results_of_a_job_reach_its_flow_run(
    server: JobsServer, shown: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []
    driver = EventLines(log.append)
    driver.stage_started("recover", 2, 0)
    for shard in ("c0", "c1"):
        driver.job_finished("recover", Receipt("key", shard, seconds=3.0, rows=7))
    driver.stage_finished("recover", 6.0)
    log.append("distill: warning: the clock of this node is wrong")
    log.append(event_line("warning", text="a class has disappeared"))
    rows = [{"network": "resnet18", "last": "61.2"}]
    log.append(event_line("published", name="weekly", rows=rows, note="a note", text="# weekly"))
    with caplog.at_level(logging.INFO, "flow run"):
        follow(server, log, "SUCCEEDED", 0)
    assert shown.created["weekly-recover"] == "recover of weekly"
    assert shown.percent[-1] == 100.0
    assert shown.created["weekly-accuracy"] == rows
    assert shown.created["weekly-report"] == "# weekly"
    said = caplog.text
    assert "recover: c1: 7 rows in 3.0 s" in said
    assert "the clock of this node is wrong" in said
    assert "a class has disappeared" in said


def test_the_failure_of_a_job_is_the_failure_of_its_flow_run(
    server: JobsServer, shown: Shown
) -> None:
    error = ShardsFailed("recover: 2 shards failed.")
    with pytest.raises(ShardsFailed, match=r"^recover: 2 shards failed\.$"):
        follow(server, [failure_line(error), f"distill: {error}"], "FAILED", 1)
    assert shown.percent == []
