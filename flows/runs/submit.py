"""A request carried out as a job of a Ray cluster, which this process submits and follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distill_core import errors
from distill_core.errors import ClusterError, DistillError, RunIncomplete
from flows.progress.event_lines import PREFIX, Event, event_line, event_of
from flows.runs.request import RunRequest
from tasks.submission.follow import Following
from tasks.submission.jobs_api import Job, JobsApi
from tasks.submission.submission import submit_once

FAILED = "failed"  # the event that ends the log of a driver that failed
SHELL_SIGNAL = 128  # exit codes above it: the number of a signal

Lines = Callable[[str], Any]


class JobLog:
    """Sorts the lines of a driver's log.

    Args:
        show: receives the lines that are for people.
        on_event: receives the events.
    """

    def __init__(self, show: Lines, on_event: Callable[[Event], Any]) -> None:
        self._show, self._on_event = show, on_event
        self.failure: Event | None = None

    def __call__(self, line: str) -> None:
        """Take a line; after the event of a failure, only its message comes, once more."""
        event = event_of(line)
        if event is not None and event["event"] == FAILED:
            self.failure = event
        elif event is not None:
            self._on_event(event)
        elif self.failure is None and not line.startswith(PREFIX):  # else an event cut short
            self._show(line)


def failure_line(error: Exception) -> str:
    """Return the line that ends the log of a driver that failed."""
    args = [str(part) for part in error.args] if isinstance(error, DistillError) else [str(error)]
    return event_line(FAILED, error=type(error).__name__, args=args)


def run_as_job(
    request: RunRequest, *, show: Lines, on_event: Callable[[Event], Any], notify: Lines
) -> None:
    """Submit a request to its cluster, or find its job that is running, and follow it to the end.

    A signal stops the job, within 10 s.

    Args:
        request: names the cluster.
        show: receives the lines of the driver's log that are for people.
        on_event: receives its events.
        notify: receives sentences on the job itself.

    Raises:
        DistillError: what the driver has ended with.
        ClusterError: the driver was lost, or the Jobs API is away for too long.
        RunIncomplete: somebody else stopped the job, or it failed in another way.
    """
    api = JobsApi(str(request.execution.submit))
    id = submit_once(api, request.submission(), notify)
    log = JobLog(show, on_event)
    job = Following(
        api, id, show=log, notify=notify, outage_seconds=request.execution.outage_seconds
    ).wait()
    if (problem := _problem(job, log.failure, api.address)) is not None:
        raise problem


def _problem(job: Job, failure: Event | None, address: str) -> DistillError | None:
    """Return the error with which a job has ended."""
    kept = f"Committed shards are kept. Its log: `ray job logs {job.id} --address {address}`."
    if job.status == "SUCCEEDED":
        return None
    if job.status == "STOPPED":
        return RunIncomplete(f"the job {job.id} was stopped. {kept}")
    if failure is not None:
        kind = getattr(errors, failure["error"], None)
        if isinstance(kind, type) and issubclass(kind, DistillError):
            return kind(*failure["args"])
        message = " ".join(failure["args"])
        return RunIncomplete(f"the job {job.id} failed: {failure['error']}: {message} {kept}")
    if job.exit_code is None or not 0 <= job.exit_code <= SHELL_SIGNAL:
        lost = "its node or its driver was lost" if job.exit_code is None else "it was killed"
        return ClusterError(f"the job {job.id} failed: {lost} ({_last(job.message)}). {kept}")
    return RunIncomplete(
        f"the job {job.id} failed with exit code {job.exit_code}: {_last(job.message)}. {kept}"
    )


def _last(message: str) -> str:
    lines = [line for line in message.splitlines() if line.strip() and not line.startswith(PREFIX)]
    return errors.one_line(lines[-1] if lines else "no message").rstrip(".")
