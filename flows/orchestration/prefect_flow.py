"""The Prefect flows distill, resume and redistill, with one task per stage.

Prefect's results and caches are off: manifests record what is complete, so a repeated flow run
computes only what is missing. Losing Prefect's database loses history, but no data.

Deployments store the paths of these functions, e.g. ``flows.orchestration.prefect_flow.distill``.
If this module moves, `deploy/prefect/prefect.yaml` has to follow and be deployed again.
"""

from __future__ import annotations

from typing import Any

from prefect import Task, flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed

from distill_core.config.schema import RunConfig
from distill_core.storage.store import Store
from flows import terminal
from flows.orchestration import parameters, schedule_settings, submitted
from flows.orchestration.artifacts import StageArtifacts, publish
from flows.orchestration.output import outlive_worker
from flows.orchestration.parameters import Name, Override, PresetName, ShardList, StoreAddress
from flows.progress.background import background
from flows.reports import published, report_data, unused
from flows.runs import last_version, pipeline
from flows.runs.redistill import Outcome
from flows.runs.request import RunRequest, carry_out
from flows.runs.shard_selection import ShardSelection
from flows.runs.work import Work
from flows.status import status
from tasks.execution import Execution, Placement
from tasks.policy import TeacherPolicy
from tasks.run import Run, default_name
from tasks.stages.names import StageId
from tasks.stages.table import row_of

RETRY_SECONDS = 10


def worth_retrying(task: object, task_run: object, state: Any) -> bool:
    """Return whether a stage failed with an error that another attempt may not meet."""
    if not getattr(state.data, "retryable", False):
        return False
    terminal.warn(f"{state.data} Trying again in {RETRY_SECONDS} s.")
    return True


TASK_SETTINGS: dict[str, Any] = {
    "persist_result": False,
    "cache_policy": NO_CACHE,
    "retries": 1,
    "retry_delay_seconds": RETRY_SECONDS,
    "retry_condition_fn": worth_retrying,
}


@task(**TASK_SETTINGS)
def run_stage(work: Work, stage: StageId) -> None:
    """Run what a stage lacks."""
    work.run_stage(stage)


def task_of(stage: StageId) -> Task[[Work, StageId], None]:
    """Return the Prefect task of a stage, with the name and the summary of the stage."""
    return run_stage.with_options(name=str(stage), description=row_of(stage).summary)


@task(**TASK_SETTINGS)
def report(work: Work) -> None:
    """Write the report, and publish the accuracy table as an artifact."""
    work.report()
    if not work.stopped:
        publish(published.contents(report_data.gather(work.run)))


def run_name() -> str:
    """Return the name of a flow run: of the run, the series, the preset, or else the schedule."""
    parameters = runtime.flow_run.parameters
    config = parameters.get("config")
    default = default_name(RunConfig.model_validate(config)) if config else parameters.get("preset")
    name = parameters.get("run") or parameters.get("series") or default or schedule_name()
    return str(name or runtime.flow_run.flow_name)


def schedule_name() -> str | None:
    """Return the name of the schedule that made the current flow run; None: it was requested.

    Prefect records it outside the parameters, which it may delete.
    """
    context = FlowRunContext.get()
    creator = context and context.flow_run and context.flow_run.created_by
    return creator.display_value if creator and creator.type == "SCHEDULE" else None


# Prefect stores the error of a failed flow in any case, with this serializer.
SETTINGS: dict[str, Any] = {
    "flow_run_name": run_name,
    "on_running": [outlive_worker],
    "persist_result": False,
    "result_serializer": "json",
}


# Nine parameters, not grouped: Prefect derives the form of a deployment from them.
@flow(**SETTINGS)
def distill(  # noqa: PLR0913
    *,
    preset: PresetName | None = None,
    overrides: tuple[Override, ...] = (),
    store: StoreAddress,
    run: Name | None = None,
    shards: ShardList | None = None,
    and_later: bool = False,
    execution: Placement = Placement(),
    config: RunConfig | None = None,
    only: dict[str, list[str]] | None = None,
) -> None:
    """Distil a dataset.

    Args:
        preset: a shipped preset; not needed with a config.
        overrides: changes to it, e.g. `ipc=50` or `recover.steps=4000`.
        store: absolute folder or s3://bucket/prefix; credentials come from the environment.
        run: name of the run; by default the preset and the config's fingerprint.
        shards: run only these class shards, by number: `3,17-20`.
        and_later: after these shards, go on with the stages that come later.
        execution: where and how jobs run.
        config: a whole config, as `distill show PRESET` prints it; replaces preset and overrides.
        only: names of the shards to run, by stage; set by `distill resume`.
    """
    resolved = parameters.resolved(preset, overrides, config)
    parameters.placed(store, execution, shards=shards, and_later=and_later)
    request(
        RunRequest(
            command="run",
            store=store,
            execution=execution,
            config=resolved,
            run=run,
            shards=shards,
            and_later=and_later,
            only=only,
        )
    )


@flow(**SETTINGS)
def resume(
    *,
    run: Name,
    store: StoreAddress,
    shards: ShardList | None = None,
    and_later: bool = False,
    failed_only: bool = False,
    execution: Placement = Placement(),
) -> None:
    """Compute the missing shards of a run.

    Args:
        run: name of a run in the store.
        store: absolute folder or s3://bucket/prefix; credentials come from the environment.
        shards: run only these class shards, by number: `3,17-20`.
        and_later: after these shards, go on with the stages that come later.
        failed_only: run only the shards that used up their attempts.
        execution: where and how jobs run.
    """
    parameters.placed(store, execution, shards=shards, and_later=and_later)
    request(
        RunRequest(
            command="resume",
            store=store,
            execution=execution,
            run=run,
            shards=shards,
            and_later=and_later,
            failed_only=failed_only,
        )
    )


@flow(**SETTINGS)
def redistill(  # noqa: PLR0913
    *,
    preset: PresetName | None = None,
    overrides: tuple[Override, ...] = (),
    store: StoreAddress,
    series: Name | None = None,
    policy: TeacherPolicy = "keep",
    if_changed: bool = False,
    execution: Placement = Placement(),
    config: RunConfig | None = None,
) -> State[None] | None:
    """Make a new version of a distilled dataset if its input has changed.

    A run of a schedule takes everything from the settings of the schedule, in the store.

    Args:
        preset: a shipped preset; not needed with a config.
        overrides: changes to it, e.g. `ipc=50` or `recover.steps=4000`.
        store: absolute folder or s3://bucket/prefix; credentials come from the environment.
        series: name of the series of versions; by default the preset.
        policy: teacher of the new version: keep, fine_tune or squeeze_again.
        if_changed: list the source first, and do nothing if it has not changed.
        execution: where and how jobs run.
        config: a whole config, as `distill show PRESET` prints it; wins over preset and overrides.

    Returns:
        A state that names the reason if the listing shows no change.
    """
    name = schedule_name()
    if name is not None and preset is None and config is None:
        settings = schedule_settings.read(Store(store), str(runtime.deployment.name), name)
        config, series, policy = settings.config, settings.series, settings.policy
        store, execution = settings.store or store, settings.placement(execution)
        if_changed = settings.if_changed
    resolved = parameters.resolved(preset, overrides, config)
    parameters.placed(store, execution)
    outcome = request(
        RunRequest(
            command="redistill",
            store=store,
            execution=execution,
            config=resolved,
            series=series,
            policy=policy,
            if_changed=if_changed,
        )
    )
    if outcome is not None and outcome.unused is not None:
        get_run_logger().warning(" ".join(unused.lines(outcome.unused)))
    elif if_changed and outcome is not None and not outcome.changed:
        return Completed(message=last_version.sentence(outcome.run))
    return None


@task(name="job", description="Submit the run to the cluster and follow it.", **TASK_SETTINGS)
def follow_job(request: RunRequest) -> None:
    """Submit a request as a job, or find its job, and follow it."""
    submitted.follow_job(request)


def request(request: RunRequest) -> Outcome | None:
    """Carry out a request in this process, or follow the job that does."""
    if request.execution.submit is None:
        return carry_out(request, run_stages)[1]
    follow_job(request.model_copy(update={"events": True}))
    return None


def run_stages(
    run: Run,
    execution: Execution,
    selection: ShardSelection | None = None,
    *,
    shards: str | None = None,
    and_later: bool = False,
) -> status.RunStatus:
    """Run every stage as a task of the current flow run.

    Args:
        run: a registered run.
        execution: where and how jobs run.
        selection: shards to run by stage.
        shards: class shards by number, which have names only once the dataset is ingested.
        and_later: go on with the stages that come after those shards.

    Raises:
        RunIncomplete: no shards were selected, and some are missing at the end.
    """
    with (
        background("artifacts") as calls,
        pipeline.opened(
            run,
            execution,
            selection or {},
            observers=[StageArtifacts(run.name, call=calls.call)],
        ) as work,
    ):
        pipeline.run_in_order(
            work,
            run_stage=lambda work, stage: task_of(stage)(work, stage),
            report=report,
            shards=shards,
            and_later=and_later,
        )
    reached = status.run_status(run)
    if not selection and shards is None:
        pipeline.require_complete(run, reached, execution)
    return reached
