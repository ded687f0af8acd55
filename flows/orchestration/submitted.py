"""A flow run that submits a job to a Ray cluster and shows what the job's driver reports.

The flow run needs no raylet and no GPU, and the driver needs no Prefect: its progress and its
results are lines of its log. A flow run that starts after the end of this process finds the job
again, and reads the log from the beginning.
"""

from __future__ import annotations

from prefect import get_run_logger

from flows.orchestration.artifacts import StageArtifacts, publish
from flows.progress.background import background
from flows.progress.event_lines import Event, EventClock, replay
from flows.reports.published import Published
from flows.runs.request import RunRequest
from flows.runs.submit import run_as_job
from tasks.pools.signals import terminable

GRACE_SECONDS = 9.5  # to stop the job after a cancellation
OURS = "distill: "  # how warnings of the driver begin


def follow_job(request: RunRequest) -> None:
    """Submit a request, or find its job, and show progress, warnings and results in Prefect.

    Raises:
        DistillError: what the job has ended with.
    """
    logger, clock = get_run_logger(), EventClock()

    def show(line: str) -> None:
        print(line, flush=True)  # in the log of the worker's process
        if line.startswith(OURS):
            logger.warning(line.removeprefix(OURS))

    with terminable(GRACE_SECONDS), background("artifacts") as calls:
        artifacts = StageArtifacts(request.subject, clock=clock, call=calls.call)

        def on_event(event: Event) -> None:
            details = {key: value for key, value in event.items() if key != "event"}
            if event["event"] == "published":
                publish(Published(**details))
            elif event["event"] == "warning":
                logger.warning(event["text"])
            else:
                replay(event, artifacts, clock)

        run_as_job(request, show=show, on_event=on_event, notify=logger.info)
