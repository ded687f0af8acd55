"""Deployments on a Prefect server: serve them, look them up, and trigger a run of one.

`deploy/prefect/prefect.yaml` describes the same three for a work pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill_core.errors import ConfigError
from flows.orchestration import api
from flows.orchestration.parameters import Parameters, completed

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

FLOWS = ("distill", "resume", "redistill")

# A deployment runs once at a time; another run waits for its turn and then has less to do.
# Cancelling it instead would lose the schedule of a second preset that is due at the same minute.
COLLISION = "ENQUEUE"


@dataclass(frozen=True)
class FlowRun:
    """A flow run that was requested from a deployment."""

    id: str
    name: str
    url: str  # of its page


def trigger(flow: str, parameters: Parameters, *, deployment: str) -> FlowRun:
    """Request a run of a deployment.

    Args:
        flow: distill, resume or redistill.
        parameters: of the run; the deployment supplies those that are left out.
        deployment: name of the deployment.

    Raises:
        ConfigError: no such deployment, or parameters that it refuses.
        ClusterError: the server cannot be reached.
    """
    with api.client() as client:
        from prefect.utilities.urls import url_for

        target = find(client, flow, deployment)
        run = client.create_flow_run_from_deployment(
            target.id, parameters=completed(target, parameters)
        )
        return FlowRun(str(run.id), run.name, url_for(run) or "")


def find(client: SyncPrefectClient, flow: str, deployment: str) -> DeploymentResponse:
    """Look up a deployment by the name of its flow and its own.

    Raises:
        ConfigError: there is none.
    """
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_deployment_by_name(f"{flow}/{deployment}")
    except ObjectNotFound:
        raise ConfigError(
            f"Prefect: no deployment {flow}/{deployment}. Create it with `distill serve` for this "
            "machine, or with `prefect deploy` and deploy/prefect/prefect.yaml for a work pool."
        ) from None


def serve(defaults: Parameters, *, deployment: str, limit: int, pause_on_shutdown: bool) -> None:
    """Serve the deployments from this process until it is stopped.

    Args:
        defaults: store and execution of runs that leave them out.
        deployment: name of the deployments.
        limit: maximum number of runs at the same time, over all deployments.
        pause_on_shutdown: pause the schedules when the process is stopped.

    Raises:
        ConfigError: PREFECT_API_URL is not set, or the server refuses the request.
        ClusterError: the server cannot be reached.
    """
    with api.client():
        pass  # to fail early where no server is named
    import prefect
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.types.entrypoint import EntrypointType

    from flows.orchestration import prefect_flow

    alone = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy(COLLISION))
    deployed = [
        getattr(prefect_flow, flow).to_deployment(
            deployment,
            parameters=defaults,
            concurrency_limit=alone,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for flow in FLOWS
    ]
    prefect.serve(
        *deployed, limit=limit, pause_on_shutdown=pause_on_shutdown, print_starting_message=False
    )
