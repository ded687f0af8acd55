"""Wait for the end of a flow run: its states, its progress, and its exit status."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from distill_core import errors
from distill_core.errors import ClusterError
from flows import exit_codes
from flows.orchestration import api
from flows.orchestration.deployments import unserved

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

POLL_SECONDS = 2.0
REPEAT_SECONDS = 60.0  # between two lines on the same stage, or on the same problem
ERRORS = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
ERRORS["NotReady"] = errors.ConfigError  # of `tasks.stages.inputs`

Notify = Callable[[str], None]


@dataclass
class _Lines:
    """Passes on each line once, and again after a while."""

    notify: Notify
    clock: Callable[[], float]
    _shown: dict[str, float] = field(default_factory=dict)

    def show(self, topic: str, line: str) -> None:
        """Pass on a line, unless one on this topic was shown a moment ago."""
        now = self.clock()
        if now - self._shown.get(topic, -REPEAT_SECONDS) >= REPEAT_SECONDS:
            self._shown[topic] = now
            self.notify(line)


def wait(
    flow_run: str,
    notify: Notify,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Wait until a flow run has ended, and return the exit status that `distill run` would have.

    A server that is away for a while is waited for.

    Args:
        flow_run: id of the flow run.
        notify: receives one line per state and stage, and one a minute while nothing changes.
        clock: seconds.
        sleep: waits between two requests.
    """
    lines = _Lines(notify, clock)
    while True:
        try:
            with api.client() as client:
                run = client.read_flow_run(UUID(flow_run))
                state = run.state
                if state is not None and state.is_final():
                    notify(_ending(run, state))
                    return exit_code(state)
                _show(client, run, lines)
        except ClusterError as error:
            lines.show("server", f"{error} Still waiting.")
        sleep(POLL_SECONDS)


def exit_code(state: State) -> int:
    """Return the exit status of a final state, as `flows.exit_codes` has them.

    A run whose process or machine was lost may be tried again; one that was cancelled has failed.
    """
    if state.is_completed():
        return 0
    if state.is_crashed():
        return exit_codes.TEMPORARY
    raised = re.search(r"exception: (?:\w+\.)*(\w+)", state.message or "")
    if not state.is_failed() or raised is None:
        return exit_codes.FAILED
    return exit_codes.exit_code(ERRORS.get(raised[1], Exception))


def _ending(run: FlowRun, state: State) -> str:
    """Return one line on how a flow run ended."""
    message = errors.one_line(state.message or "")
    return f"{run.name}: {(state.name or state.type.value).lower()}" + (
        f": {message}" if message and not state.is_completed() else ""
    )


def _show(client: SyncPrefectClient, run: FlowRun, lines: _Lines) -> None:
    """Show the state of a flow run, its progress, and the problem of one that nobody takes."""
    state = "unknown" if run.state is None else (run.state.name or run.state.type.value).lower()
    if run.state is not None and run.state.is_running():
        if progress := _progress(client, run):
            lines.show(progress.partition(":")[0], f"{run.name}: {progress}")
        return
    lines.show(state, f"{run.name}: {state}")
    if run.deployment_id is not None:
        problem = unserved(client, client.read_deployment(run.deployment_id))
        if problem is not None:
            lines.show("problem", f"warning: {problem}; until then the run waits.")


def _progress(client: SyncPrefectClient, run: FlowRun) -> str | None:
    """Return the description of the progress artifact that was updated last."""
    from prefect.client.schemas.filters import (
        ArtifactFilter,
        ArtifactFilterType,
        FlowRunFilter,
        FlowRunFilterId,
    )
    from prefect.client.schemas.sorting import ArtifactSort

    found = client.read_artifacts(
        artifact_filter=ArtifactFilter(type=ArtifactFilterType(any_=["progress"])),
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
        sort=ArtifactSort.UPDATED_DESC,
        limit=1,
    )
    return found[0].description if found else None
