"""A subject has one job at a time, whoever submits it and whatever answer is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distill_core.errors import ClusterError, ConfigError
from tasks.submission.jobs_api import JobsApi, Unanswered
from tasks.submission.submission import Submission, submit_once
from tests.support.jobs_server import JobsServer

WEEKLY = Submission("weekly", "s3://bucket/runs", "exec true", config="c0ffee")


def submit(server: JobsServer, submission: Submission = WEEKLY) -> tuple[str, list[str]]:
    said: list[str] = []
    return submit_once(JobsApi(server.url), submission, said.append), said


def test_a_second_submit_follows_the_job_that_is_running(server: JobsServer) -> None:
    first, (submitted,) = submit(server)
    second, (found,) = submit(server, replace(WEEKLY, config=""))
    assert (first, list(server.jobs)) == (second, [first])
    assert f"submitted to {server.url} as the job {first}" in submitted
    assert f"{first} runs already" in found


def test_a_job_that_has_ended_is_followed_by_the_next_attempt(server: JobsServer) -> None:
    ids = []
    for status in ("FAILED", "SUCCEEDED", "STOPPED"):
        ids.append(submit(server)[0])
        server.end(ids[-1], status)
    assert [id.rpartition("-")[2] for id in ids] == ["1", "2", "3"]
    assert [server.jobs[id]["metadata"]["distill.attempt"] for id in ids] == ["1", "2", "3"]


def test_runs_of_one_name_in_two_stores_are_two_jobs(server: JobsServer) -> None:
    ids = {submit(server)[0], submit(server, replace(WEEKLY, store="s3://other/runs"))[0]}
    assert len(ids) == len(server.jobs) == 2


def test_two_who_submit_at_once_end_up_with_one_job(server: JobsServer) -> None:
    """The other one is faster: the cluster refuses the id, with an error like any other."""
    other, _ = submit(server)
    answer, hidden = server.answer, dict(server.jobs)
    lists = iter([{}, hidden])

    def late(method: str, path: str, body: object, headers: dict[str, str]) -> tuple[int, object]:
        if (method, path) == ("GET", "/api/jobs/"):
            return 200, [*next(lists).values()]
        return answer(method, path, body, headers)

    server.answer = late  # type: ignore[method-assign]
    found, (said,) = submit(server)
    assert found == other
    assert "runs already" in said


def test_a_job_whose_submission_was_answered_by_an_error_is_found(server: JobsServer) -> None:
    def fail(job: object) -> None:
        raise ConnectionResetError

    server.on_submit = fail
    id, (said,) = submit(server)
    assert list(server.jobs) == [id]
    assert "runs already" in said


@pytest.mark.parametrize(
    ("running", "wanted", "words"),
    [
        (WEEKLY, replace(WEEKLY, config="decaf"), "with another config"),
        (
            replace(WEEKLY, work="redistill, policy keep"),
            replace(WEEKLY, work="run"),
            "with another",
        ),
        (replace(WEEKLY, part="shards 3"), WEEKLY, r"with a part of the shards \(shards 3\)"),
    ],
)
def test_a_job_that_does_something_else_with_the_run_is_named(
    server: JobsServer, running: Submission, wanted: Submission, words: str
) -> None:
    id, _ = submit(server, running)
    with pytest.raises(ConfigError, match=rf"the job {id} runs already, {words}.*ray job stop"):
        submit(server, wanted)


def test_a_signal_while_a_job_is_submitted_stops_it(server: JobsServer) -> None:
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    api = JobsApi(server.url)
    with pytest.raises(KeyboardInterrupt):
        submit_once(api, WEEKLY, interrupt)
    (id,) = server.jobs
    stopped = api.job(id)
    assert stopped is not None
    assert stopped.status == "STOPPED"


def test_a_part_of_the_shards_is_left_to_a_job_for_all_of_them(server: JobsServer) -> None:
    whole, _ = submit(server)
    assert submit(server, replace(WEEKLY, part="shards 3"))[0] == whole


def test_a_token_is_sent_and_a_refused_one_is_said_in_one_line(
    server: JobsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "0123456789abcdef" * 2
    with pytest.raises(ConfigError, match=r"refuses access; no token is set here\. Set RAY_AUTH"):
        submit(server)
    monkeypatch.setenv("RAY_AUTH_TOKEN", server.token)
    submit(server)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 32)
    with pytest.raises(ConfigError, match="the token set here is refused") as refused:
        submit(server)
    assert "f" * 32 not in str(refused.value)


def test_headers_of_rays_own_variable_are_sent(
    server: JobsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_HEADERS", '{"X-Key": "of a proxy"}')
    submit(server)
    assert all(each["x-key"] == "of a proxy" for each in server.headers)
    monkeypatch.setenv("RAY_JOB_HEADERS", "X-Key: of a proxy")
    with pytest.raises(ConfigError, match="RAY_JOB_HEADERS: expected a JSON object"):
        submit(server)


def test_an_address_where_nothing_or_something_else_answers(server: JobsServer) -> None:
    with pytest.raises(ConfigError, match=r"not as the Jobs API of Ray .*dashboard"):
        submit_once(JobsApi(f"{server.url}/elsewhere"), WEEKLY, print)
    with pytest.raises(Unanswered, match=r"no answer .*refused.*Check that the head runs"):
        submit_once(JobsApi("http://127.0.0.1:9"), WEEKLY, print)
    server.is_away = True
    with pytest.raises(ClusterError, match=r"reports a fault \(503: the upstream is away"):
        submit(server)
