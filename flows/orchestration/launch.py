"""Completion of a run: as a Prefect flow, or with `--local` in this process."""

from __future__ import annotations

from typing import Any

from distill_core.errors import ClusterError
from flows import terminal
from flows.orchestration import api
from flows.runs import pipeline
from flows.runs.shard_selection import ShardSelection
from flows.status.status import RunStatus, run_status
from tasks.execution import Execution
from tasks.run import Run


def complete_run(
    run: Run, execution: Execution, selection: ShardSelection | None = None
) -> RunStatus:
    """Run what a run lacks and return its status; where nothing is missing, start nothing.

    Args:
        run: a registered run.
        execution: where and how jobs run; `local` decides whether Prefect takes part.
        selection: shards to run by stage; by default all that are missing.
    """
    start = pipeline.run_local if execution.local else run_with_prefect
    return pipeline.complete_run(run, execution, selection, start=start)


def run_with_prefect(run: Run, execution: Execution, selection: ShardSelection) -> None:
    """Run every stage as a Prefect flow; its parameters are plain JSON, without credentials.

    A server that is away at the end of the flow cannot record it; that is a warning.

    Raises:
        ConfigError: this machine is no node of the cluster that it is to join.
        ClusterError: there is no such cluster, or the server went away before the stages were
            done.
    """
    if execution.ray_address is not None:  # before a server starts, which takes a while
        from tasks.pools.ray_cluster import check_joinable

        check_joinable(execution.ray_address)
    with api.connected() as log:
        # Prefect reads its settings when it is imported, so they have to be in place by then.
        from flows.orchestration.prefect_flow import distill

        parameters: dict[str, Any] = {
            "config": run.config.model_dump(mode="json"),
            "store": run.store.url,
            "run": run.name,
            "execution": execution.model_dump(mode="json", exclude={"store"}),
            "only": {stage: list(shards) for stage, shards in selection.items()},
        }
        try:
            distill(**parameters)
        except Exception as error:
            if not api.is_absence(error):
                raise
            log.keep = True
            if not run_status(run).nothing_to_do(execution.allow_missing):
                raise ClusterError(f"{api.ABSENT} Its log is in {log.path}.") from error
            terminal.warn(
                f"{api.ABSENT} Every stage is complete, but Prefect may show the flow run as "
                f"unfinished. Its log is in {log.path}."
            )
