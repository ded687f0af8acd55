"""Deployments on a Prefect server: which there are, serving them, and asking one for a run.

`deploy/prefect/prefect.yaml` describes the same three for a work pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from distill_core.storage.store import Store
from flows.orchestration import api
from flows.runs.options import DEFAULT_DEPLOYMENT
from flows.runs.pipeline import execution_of

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

Parameters = dict[str, Any]

FLOWS = ("distill", "resume", "redistill")

# One run of a deployment at a time; another one waits for its turn and then finds less to do. To
# drop it instead would lose the schedule of a second preset that falls due at the same minute.
COLLISION = "ENQUEUE"


@dataclass(frozen=True)
class Asked:
    """A flow run that a deployment was asked for."""

    id: str
    name: str
    url: str  # of its page


def of_config(config: RunConfig) -> Parameters:
    """Return the parameters that say what to make; the resolved config alone decides."""
    return {"preset": None, "overrides": [], "config": config.model_dump(mode="json")}


def ask(flow: str, said: Parameters, *, name: str = DEFAULT_DEPLOYMENT) -> Asked:
    """Ask a deployment for a run.

    Args:
        flow: distill, resume or redistill.
        said: parameters; what is left out is the deployment's own.
        name: of the deployment.

    Raises:
        ConfigError: no such deployment, or parameters that it refuses.
        ClusterError: the server cannot be reached.
    """
    with api.client() as client:
        from prefect.utilities.urls import url_for

        found = deployment(client, flow, name)
        made = client.create_flow_run_from_deployment(found.id, parameters=completed(found, said))
        return Asked(str(made.id), made.name, url_for(made) or "")


def deployment(client: SyncPrefectClient, flow: str, name: str) -> DeploymentResponse:
    """Look a deployment up.

    Raises:
        ConfigError: there is none.
    """
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_deployment_by_name(f"{flow}/{name}")
    except ObjectNotFound:
        raise ConfigError(
            f"Prefect: no deployment {flow}/{name}. `distill serve` makes one for this machine, "
            "`prefect deploy` with deploy/prefect/prefect.yaml one for a work pool."
        ) from None


def completed(found: DeploymentResponse, said: Parameters) -> Parameters:
    """Lay what was said over a deployment's own parameters, and check where jobs are to run.

    Raises:
        ConfigError: no store, an address that cannot be one, or a wrong way to run.
    """
    own = found.parameters or {}
    store = said.get("store") or own.get("store")
    if not store:
        raise ConfigError(f"store: the deployment {found.name} has none; say --store.")
    execution = {**(own.get("execution") or {}), **said.get("execution", {})}
    execution_of({**execution, "store": store})
    return {**said, "store": Store(store).url, "execution": execution}


def serve(own: Parameters, *, name: str, limit: int, pause_on_shutdown: bool) -> None:
    """Serve the deployments from this process until it is stopped.

    Args:
        own: parameters of runs that do not say them: store, execution.
        name: of the deployments.
        limit: runs at a time, over all of them.
        pause_on_shutdown: pause their schedules when the process is stopped.
    """
    with api.client():
        pass  # a server has to be named
    import prefect
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.types.entrypoint import EntrypointType

    from flows.orchestration import prefect_flow

    alone = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy(COLLISION))
    served = [
        getattr(prefect_flow, flow).to_deployment(
            name,
            parameters=own,
            concurrency_limit=alone,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for flow in FLOWS
    ]
    prefect.serve(
        *served, limit=limit, pause_on_shutdown=pause_on_shutdown, print_starting_message=False
    )
