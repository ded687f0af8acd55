"""One pass over a run: its checks, its workers and observers, and its stages in order.

`run_local` and the Prefect flow run the same stages with the same `Work`, and write the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import ValidationError

from distill_core.config.schema import RunConfig
from distill_core.data.detection.resolve import resolve_run
from distill_core.data.index_files import load_index
from distill_core.errors import ConfigError, RunIncomplete, StorageError, StorageRefused, shown
from distill_core.naming.addresses import check_host, store_address
from distill_core.storage.identity import ensure_identity
from distill_core.storage.race import arbitrates
from distill_core.storage.store import ANOTHER_STORE, Store
from flows import terminal
from flows.progress.background import background
from flows.progress.display import display
from flows.progress.event_log import EventLog
from flows.progress.followers import Several
from flows.reports.report import write_report
from flows.reports.report_data import REPORT
from flows.runs import preflight
from flows.runs.precision import warn_if_slow
from flows.runs.shard_selection import ShardSelection, by_number
from flows.runs.work import Work
from flows.status.status import RunStatus, run_status
from tasks.execution import Execution
from tasks.observer import Observer
from tasks.pools.provider import PoolProvider
from tasks.run import Run, create_run, planned_run
from tasks.runs.heartbeat import Heartbeat
from tasks.runs.ray_metrics import RayMetrics
from tasks.stages.inputs import dataset_of
from tasks.stages.names import StageId
from tasks.stages.table import stages_of

Start = Callable[[Run, Execution, ShardSelection], None]


def prepare(
    config: RunConfig,
    execution: Execution,
    *,
    name: str | None,
    check: Callable[[], None] | None = None,
) -> Run:
    """Register a run, after all checks that need no work; nothing is written if one fails.

    Args:
        config: of the run.
        execution: names the store; where and how jobs run.
        name: of the run; by default the preset and the config's fingerprint.
        check: what else the run needs; called before anything is written, if it is not complete.

    Raises:
        ConfigError, DataError: see `preflight.check`.
        StorageError: the store cannot be written, or lets two drivers create the same object.
    """
    store = Store(execution.store, single_writer=execution.single_writer)
    config = resolve_run(config, notice=terminal.print_lines)
    run = planned_run(config, store, name)
    preflight.check(run, execution)
    if not run_status(run).complete:
        if check is not None:
            check()
        check_store(store)
    return create_run(config, store, run.name)


def execution_of(tree: Mapping[str, Any]) -> Execution:
    """Return execution settings from a plain tree, checked.

    Raises:
        ConfigError: an unknown key, a value out of range, or an address that cannot be a store.
    """
    store_address(str(tree["store"]))
    for key in ("ray_address", "submit"):
        check_host(str(tree.get(key)), key=key)
    try:
        return Execution.model_validate(dict(tree))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in problem["loc"]) or "execution"
        raise ConfigError(f"{path} = {shown(problem['input'])}: {problem['msg']}.") from None


def check_store(store: Store) -> None:
    """Refuse a store that creates an object twice; in single-writer mode, only warn on stderr.

    Raises:
        StorageError: it cannot be written, or creates an object twice.
    """
    if arbitrates(store):
        return
    problem = (
        f"{store.url}: the store does not refuse to create the same object twice, so two drivers "
        f"could overwrite each other"
    )
    if not store.single_writer:
        raise StorageRefused(f"{problem}. {ANOTHER_STORE}")
    terminal.warn(
        f"{problem}. Continuing in single-writer mode: start no second driver on this store."
    )


@contextmanager
def opened(
    run: Run,
    execution: Execution,
    selection: ShardSelection,
    *,
    observers: Sequence[Observer] = (),
) -> Iterator[Work]:
    """Yield the work of one pass; workers start on first use and stop at the end.

    Raises:
        StorageError: the store cannot be written, or lets two drivers create the same object.
    """
    check_store(run.store)
    warn_if_slow(run.config, execution.device)
    pools, metrics = PoolProvider(execution), RayMetrics(run.name)
    with (
        Heartbeat(
            run,
            execution,
            workers=lambda: pools.workers,
            processes=lambda: pools.processes,
            publish=metrics.publish,
        ) as heart,
        background("event log") as calls,
    ):
        log = EventLog(run, driver=heart.id, write=partial(calls.call, run.store.put))
        try:
            with pools, display() as progress:
                observer = Several(progress, log, heart, metrics, *observers)
                yield Work(
                    run,
                    execution=execution,
                    observer=observer,
                    pools=pools,
                    selection=selection,
                    driver=heart.id,
                )
        finally:
            log.flush()


def require_complete(run: Run, status: RunStatus, execution: Execution) -> None:
    """Refuse the end of a pass over a whole run that left something to do.

    Raises:
        RunIncomplete: a stage lacks shards or its manifest.
    """
    for stage in status.stages:
        if not stage.nothing_to_do(execution.allow_missing):
            total = "an unknown number of" if stage.total is None else stage.total
            raise RunIncomplete(
                f"runs/{run.name}: incomplete, although every stage was run: {stage.stage} has "
                f"{stage.done} of {total} shards. Run `distill resume {run.name}`; if this "
                f"repeats, check the store with `distill doctor --store {run.store.url}`."
            )


def run_local(run: Run, execution: Execution, selection: ShardSelection) -> None:
    """Run every stage from this process, without Prefect."""
    with opened(run, execution, selection) as work:
        run_in_order(work)


def run_in_order(
    work: Work,
    *,
    run_stage: Callable[[Work, StageId], object] = Work.run_stage,
    report: Callable[[Work], object] = Work.report,
    shards: str | None = None,
    and_later: bool = False,
) -> None:
    """Run every stage of a pass, and write its report.

    Args:
        work: of the pass.
        run_stage: runs one stage.
        report: writes the report.
        shards: class shards by number, which have names only once the dataset is ingested.
        and_later: go on with the stages that come after those shards.
    """
    first, *others = stages_of(work.run.config)
    run_stage(work, first)
    if shards is not None:
        work.narrow(by_number(work.run, shards, and_later=and_later))
    for stage in others:
        run_stage(work, stage)
    report(work)


def complete_run(
    run: Run,
    execution: Execution,
    selection: ShardSelection | None = None,
    *,
    start: Start = run_local,
) -> RunStatus:
    """Run what a run lacks and return its status; where nothing is missing, start nothing.

    Args:
        run: a registered run.
        execution: where and how jobs run.
        selection: shards to run by stage; by default all that are missing.
        start: runs the stages; `flows.orchestration.launch` passes the one that uses Prefect.

    Raises:
        DataError: a record of the run or the index of its dataset is damaged.
    """
    run = replace(run, store=replace(run.store, single_writer=execution.single_writer))
    with suppress(StorageError):  # a run that has work to do reports it
        ensure_identity(run.store)  # stores of older versions have none
    status, allowed = run_status(run), execution.allow_missing
    if not (status.complete or (not selection and status.nothing_to_do(allowed))):
        start(run, execution, selection or {})
        status = run_status(run)
    else:
        load_index(run.store, dataset_of(run))  # raises if a table was damaged since
    if status.nothing_to_do(allowed) and not run.store.exists(run.path(REPORT)):
        write_report(run)
    return status
