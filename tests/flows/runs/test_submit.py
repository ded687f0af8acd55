"""A request travels to a cluster as a job, and its end comes back as the command's own."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill_core import errors
from distill_core.config.load import load_run
from distill_core.errors import ConfigError
from flows.progress.event_lines import event_line
from flows.runs.request import VARIABLE, RunRequest
from flows.runs.submit import failure_line
from tasks.execution import Placement
from tests.support.cli import Distill
from tests.support.jobs_server import Job, JobsServer, jobs_server

RUN = ("run", "digits-demo", "ipc=3", "--store", "s3://bucket/runs", "--name", "weekly")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobsServer]:
    """Serve a Jobs API that wants no token; its jobs end at once, as a test sets."""
    with jobs_server(monkeypatch) as made:
        yield made


def ends(server: JobsServer, status: str, log: str = "", code: int | None = None) -> None:
    """Let each job end as soon as it is submitted."""

    def end(job: Job) -> None:
        server.end(job["submission_id"], status, code=code, log=log)

    server.on_submit = end


def submitted(server: JobsServer) -> tuple[RunRequest, Job]:
    """Return the request that the only job would carry out, and the job."""
    (job,) = server.jobs.values()
    return RunRequest.received(job["runtime_env"]["env_vars"]), job


def test_a_run_travels_whole_and_is_carried_out_on_the_ray_of_the_head(
    server: JobsServer, distill: Distill
) -> None:
    ends(server, "SUCCEEDED", code=0, log="the table\n")
    output = distill(*RUN, "--workers", "4", "--submit", server.url)
    assert (output.code, output.out) == (0, "the table\n")
    request, job = submitted(server)
    assert request.config == load_run("digits-demo", ["ipc=3"])
    assert (request.command, request.run, request.store) == ("run", "weekly", "s3://bucket/runs")
    assert request.execution == Placement(workers=4, ray_address="auto")
    assert job["entrypoint"] == "exec distill job"
    assert job["metadata"]["distill.subject"] == "weekly"


def test_resume_and_redistill_travel_as_well(server: JobsServer, distill: Distill) -> None:
    ends(server, "SUCCEEDED", code=0)
    place = ("--store", "s3://bucket/runs", "--submit", server.url, "--ray-address", "head:6379")
    assert distill("resume", "weekly", "--shards", "3,5", *place).code == 0
    resume, job = submitted(server)
    assert (resume.run, resume.shards, resume.config) == ("weekly", "3,5", None)
    assert resume.execution.ray_address == "head:6379"
    assert job["metadata"]["distill.part"] == "shards 3,5"

    server.jobs.clear()
    assert distill("redistill", "digits-demo", "--policy", "fine_tune", *place).code == 0
    version, job = submitted(server)
    assert (version.policy, version.subject) == ("fine_tune", "digits-demo")
    assert job["metadata"]["distill.subject"] == "digits-demo"


def test_only_requests_that_do_the_same_share_a_job() -> None:
    config = load_run("digits-demo")
    run = RunRequest(command="run", store="s3://bucket/runs", config=config, run="weekly")
    resume = RunRequest(command="resume", store="s3://bucket/runs", run="weekly")
    again = RunRequest(
        command="redistill", store="s3://bucket/runs", config=config, series="weekly"
    )
    fresh = again.model_copy(update={"policy": "squeeze_again"})
    lenient = run.model_copy(update={"execution": Placement(allow_missing=3)})
    works = [each.submission().work for each in (run, resume, again, fresh, lenient)]
    assert works[0] == works[1]
    assert len(set(works)) == 4


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("data.path: missing. Set it."), 2),
        (errors.ShardsFailed("recover: 2 shards failed."), 1),
        (errors.RunIncomplete("runs/weekly: incomplete."), 1),
        (errors.ClusterError("every worker was lost."), 75),
        (errors.Problems("first", "second"), 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_job_ends_the_command_as_its_driver_ended(
    server: JobsServer, distill: Distill, error: errors.DistillError, code: int
) -> None:
    line = f"distill: {error}"
    ends(server, "FAILED", code=code, log=f"squeeze: started\n{failure_line(error)}\n{line}\n")
    output = distill(*RUN, "--submit", server.url)
    assert (output.code, output.out) == (code, "squeeze: started\n")
    assert output.err.endswith(f"{line}\n")


@pytest.mark.parametrize(
    ("status", "log", "exit_code", "code", "words"),
    [
        ("STOPPED", "", None, 1, "was stopped. Committed shards are kept"),
        ("FAILED", "", None, 75, "its node or its driver was lost"),
        ("FAILED", "", -signal.SIGKILL, 75, "it was killed"),
        ("FAILED", "", 128 + signal.SIGKILL, 75, "it was killed"),
        ("FAILED", "sh: 1: exec: distill: not found\n", 127, 1, "exit code 127: sh: 1: exec"),
        ("FAILED", f"{failure_line(KeyError('x'))}\n", 1, 1, "failed: KeyError: 'x'"),
        ("FAILED", event_line("failed", error="Sig")[:-4], 1, 1, "exit code 1: no message"),
    ],
    ids=["stopped", "lost", "killed", "killed in a shell", "not installed", "bug", "cut short"],
)
def test_a_driver_that_reports_no_error_of_ours(
    server: JobsServer,
    distill: Distill,
    status: str,
    log: str,
    exit_code: int | None,
    code: int,
    words: str,
) -> None:
    ends(server, status, code=exit_code, log=log)
    output = distill(*RUN, "--submit", server.url)
    assert output.code == code
    assert words in output.err
    assert "ray job logs distill-weekly-" in output.err
    assert output.err.count("\n") == 2  # the submission, and the error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*RUN, "--submit", "head:8265"), "expected an address like http://HEAD:8265"),
        (
            (*RUN, "--submit", "http://me:hush@head:8265"),
            "submit: the address contains credentials",
        ),
        ((*RUN, "--submit", "http://head:8265", "--local"), "local runs without Ray"),
        ((*RUN, "--submit", "http://head:8265", "--dry-run"), "--dry-run: not with --submit"),
        (("resume", "weekly", "--submit", "http://head:8265", "--json"), "--json: not with"),
        (("run", "./here", "--submit", "http://head:8265"), "not a dataset"),
        ((*RUN, "ipc=0", "--submit", "http://head:8265"), "ipc = 0"),
        (("resume", "a", "--shards", "x", "--submit", "http://head:8265"), "--shards"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_submitted(
    distill: Distill, arguments: tuple[str, ...], words: str
) -> None:
    output = distill(*arguments)
    assert output.code == 2
    assert words in output.err
    assert "hush" not in output.err


def test_an_empty_address_is_none() -> None:
    assert Placement(submit="").submit is None
    assert Placement(submit="https://head/ray/").submit == "https://head/ray"


def test_relative_paths_start_here_and_are_named(
    server: JobsServer, distill: Distill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ends(server, "SUCCEEDED", code=0)
    output = distill("run", "digits-demo", "data.path=images", "--submit", server.url)
    request, _ = submitted(server)
    assert request.config is not None
    assert (request.config.data.path, request.store) == (f"{tmp_path}/images", f"{tmp_path}/out")
    assert "local paths. The machine that runs this has to see the same files" in output.err


def test_a_request_of_another_version_is_named() -> None:
    text = json.dumps({"command": "run", "store": "s3://b", "speed": 3})
    with pytest.raises(ConfigError, match=r"speed = 3: .*another version of distill"):
        RunRequest.received({VARIABLE: text})
    with pytest.raises(ConfigError, match="is not set"):
        RunRequest.received({})
