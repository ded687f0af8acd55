"""The Prefect flows: when and in which order. One task per stage, never one per class.

Prefect's results and caches are off: the manifests say what is done, so a flow run that is repeated
does only what is missing. Losing Prefect's database loses history, never data.
"""

from __future__ import annotations

from typing import Any

from prefect import Task, flow, runtime, task
from prefect.cache_policies import NO_CACHE

from distill_core.config.schema import RunConfig
from distill_core.storage.store import Store
from flows.orchestration import parameters
from flows.orchestration.artifacts import StageArtifacts, publish
from flows.orchestration.parameters import Override, PresetName, ShardList, StoreAddress
from flows.reports import report_data
from flows.runs import pipeline, shard_selection
from flows.runs.pipeline import Only, Work
from flows.status import status
from tasks.execution import Execution, Placement
from tasks.policy import TeacherPolicy
from tasks.run import Run, default_name, open_run
from tasks.stages.names import StageId
from tasks.stages.table import row_of, stages_of


def worth_retrying(task: object, task_run: object, state: Any) -> bool:
    """Return whether a stage's error says that trying again may help."""
    return bool(getattr(state.data, "retryable", False))


ONCE_MORE: dict[str, Any] = {
    "persist_result": False,
    "cache_policy": NO_CACHE,
    "retries": 1,
    "retry_delay_seconds": 10,
    "retry_condition_fn": worth_retrying,
}


@task(**ONCE_MORE)
def do_stage(work: Work, stage: StageId) -> None:
    """Do what a stage lacks."""
    work.do(stage)


def task_of(stage: StageId) -> Task[[Work, StageId], None]:
    """Return the Prefect task of a stage, under the stage's own name."""
    return do_stage.with_options(name=str(stage), description=row_of(stage).summary)


@task(**ONCE_MORE)
def report(work: Work) -> None:
    """Write the report, and show the accuracy table among the artifacts."""
    work.report()
    if not work.stopped:
        publish(report_data.gather(work.run))


def run_name() -> str:
    """Return what Prefect calls a flow run: the run, the series, or the preset it makes."""
    said = runtime.flow_run.parameters
    config = said.get("config")
    made = default_name(RunConfig.model_validate(config)) if config else said.get("preset")
    return str(said.get("run") or said.get("series") or made)


# The serializer is for the one thing Prefect stores regardless: the error of a failed flow.
SETTINGS: dict[str, Any] = {
    "flow_run_name": run_name,
    "persist_result": False,
    "result_serializer": "json",
}


@flow(**SETTINGS)
def distill(
    *,
    preset: PresetName | None = None,
    overrides: tuple[Override, ...] = (),
    store: StoreAddress,
    run: str | None = None,
    shards: ShardList | None = None,
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
        shards: only these class shards, by number: `3,17-20`.
        execution: where and how jobs run.
        config: a whole config, as `distill show PRESET` prints it; wins over preset and overrides.
        only: shards to run by stage, by name; `distill resume` fills it.
    """
    resolved = parameters.resolved(preset, overrides, config)
    where = parameters.placed(store, execution, shards=shards)
    made = pipeline.prepare(resolved, Store(store), name=run, single_writer=where.single_writer)
    run_stages(made, where, only, shards=shards)


@flow(**SETTINGS)
def resume(
    *,
    run: str,
    store: StoreAddress,
    shards: ShardList | None = None,
    failed_only: bool = False,
    execution: Placement = Placement(),
) -> None:
    """Do what a run lacks, and nothing else.

    Args:
        run: name of a run in the store.
        store: absolute folder or s3://bucket/prefix; credentials come from the environment.
        shards: only these class shards, by number: `3,17-20`.
        failed_only: only the shards that used up their attempts.
        execution: where and how jobs run.
    """
    where = parameters.placed(store, execution, shards=shards)
    found = open_run(Store(store), run)
    only = shard_selection.selection(found, failed_only=failed_only, shards=shards)
    run_stages(found, where, only)


@flow(**SETTINGS)
def redistill(
    *,
    preset: PresetName | None = None,
    overrides: tuple[Override, ...] = (),
    store: StoreAddress,
    series: str | None = None,
    policy: TeacherPolicy = "keep",
    execution: Placement = Placement(),
    config: RunConfig | None = None,
) -> None:
    """Look at the dataset again, and make anew only what its changes ask for.

    Args:
        preset: a shipped preset; not needed with a config.
        overrides: changes to it, e.g. `ipc=50` or `recover.steps=4000`.
        store: absolute folder or s3://bucket/prefix; credentials come from the environment.
        series: name of the runs that follow each other; by default the preset.
        policy: what becomes of the teacher when the dataset has changed.
        execution: where and how jobs run.
        config: a whole config, as `distill show PRESET` prints it; wins over preset and overrides.
    """
    from flows.runs import redistill as again

    resolved = parameters.resolved(preset, overrides, config)
    where = parameters.placed(store, execution)
    again.redistill(
        resolved,
        Store(store),
        series=series or resolved.preset,
        policy=policy,
        execution=where,
        complete=run_stages,
    )


def run_stages(
    made: Run, where: Execution, only: Only | None = None, *, shards: str | None = None
) -> status.RunStatus:
    """Run every stage as a task of the current flow run.

    Args:
        made: a registered run.
        where: where and how jobs run.
        only: shards to run by stage.
        shards: class shards by number; known only once the dataset is indexed.
    """
    with pipeline.opened(made, where, only or {}, observers=[StageArtifacts(made.name)]) as work:
        first, *others = stages_of(made.config)
        task_of(first)(work, first)
        if shards is not None:
            work.narrow(shard_selection.by_number(made, shards))
        for stage in others:
            task_of(stage)(work, stage)
        report(work)
    return status.run_status(made)
