"""Deployments on a Prefect server: serve them, look them up, and trigger a run of one.

`deploy/prefect/prefect.yaml` describes the same three for a work pool.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill_core.errors import ConfigError
from flows.orchestration import api
from flows.orchestration.parameters import Parameters, completed

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

# Prefect lists deployments by their own names, so those have to differ and mean something.
NAMES: Mapping[str, str] = {
    "distill": "new-run",
    "resume": "missing-shards",
    "redistill": "new-version",
}
FLOWS = tuple(NAMES)
EARLIER = "default"  # the name of all three in earlier versions

# A deployment runs once at a time; another run waits for its turn and then has less to do.
# Cancelling it instead would lose the schedule of a second preset that is due at the same minute.
COLLISION = "ENQUEUE"


@dataclass(frozen=True)
class FlowRun:
    """A flow run that was requested from a deployment."""

    id: str
    name: str
    url: str  # of its page
    deployment: str  # flow and deployment, e.g. distill/new-run
    problem: str | None  # why no process takes it now; None: one polls for it


def deployment_name(flow: str, group: str | None) -> str:
    """Return the name of a flow's deployment, e.g. ``new-run``, or ``new-run-gpu`` of a group."""
    return NAMES[flow] if group is None else f"{NAMES[flow]}-{group}"


def trigger(flow: str, parameters: Parameters, *, run: str, group: str | None) -> FlowRun:
    """Request a run of a deployment.

    Args:
        flow: distill, resume or redistill.
        parameters: of the run; the deployment supplies those that are left out.
        run: name of the run, which is also the name of the flow run while it waits.
        group: of deployments; None: those without a group.

    Raises:
        ConfigError: no such deployment, or parameters that it refuses.
        ClusterError: the server cannot be reached.
    """
    with api.client() as client:
        from prefect.utilities.urls import url_for

        target = find(client, flow, group)
        problem = unserved(client, target)
        requested = client.create_flow_run_from_deployment(
            target.id, parameters=completed(target, parameters), name=run
        )
        return FlowRun(
            id=str(requested.id),
            name=requested.name,
            url=url_for(requested) or "",
            deployment=f"{flow}/{target.name}",
            problem=problem,
        )


def find(client: SyncPrefectClient, flow: str, group: str | None) -> DeploymentResponse:
    """Look up the deployment of a flow.

    Raises:
        ConfigError: there is none.
    """
    from prefect.exceptions import ObjectNotFound

    name = deployment_name(flow, group)
    try:
        return client.read_deployment_by_name(f"{flow}/{name}")
    except ObjectNotFound:
        raise ConfigError(
            f"Prefect: no deployment {flow}/{name}. Create it with `distill serve` for this "
            "machine, or with `prefect deploy` and deploy/prefect/prefect.yaml for a work pool; "
            f"those of earlier versions are named {flow}/{EARLIER} and are no longer used."
        ) from None


def unserved(client: SyncPrefectClient, deployment: DeploymentResponse) -> str | None:
    """Return why no process would take a run of a deployment now, and a remedy; None: one would.

    A process that was killed still counts for about a minute.
    """
    pool = deployment.work_pool_name
    if pool is None:
        if deployment.status == "READY":
            return None
        return f"no process serves {deployment.name}. Start `distill serve`"
    found = client.read_work_pool(pool)
    if found.is_paused:
        return f"the work pool {pool} is paused. Run `prefect work-pool resume {pool}`"
    if found.is_push_pool or found.is_managed_pool:  # without workers
        return None
    if any(worker.status == "ONLINE" for worker in client.read_workers_for_work_pool(pool)):
        return None
    return f"no worker polls the work pool {pool}. Run `prefect worker start --pool {pool}`"


def serve(defaults: Parameters, *, group: str | None, limit: int, pause_on_shutdown: bool) -> None:
    """Serve the deployments from this process until it is stopped.

    Args:
        defaults: store and execution of runs that leave them out.
        group: of the deployments; None: without a group.
        limit: maximum number of runs at the same time, over all deployments.
        pause_on_shutdown: pause the schedules when the process is stopped.

    Raises:
        ConfigError: PREFECT_API_URL is not set, or the server refuses the request.
        ClusterError: the server cannot be reached.
    """
    with api.client():
        pass  # to fail early where no server is named
    api.check_server()
    for name, value in api.OF_FLOW_RUNS.items():
        os.environ.setdefault(name, value)  # of the processes of flow runs
    import prefect
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.types.entrypoint import EntrypointType

    from flows.orchestration import prefect_flow

    alone = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy(COLLISION))
    deployed = [
        getattr(prefect_flow, flow).to_deployment(
            deployment_name(flow, group),
            parameters=defaults,
            concurrency_limit=alone,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for flow in FLOWS
    ]
    prefect.serve(
        *deployed, limit=limit, pause_on_shutdown=pause_on_shutdown, print_starting_message=False
    )
