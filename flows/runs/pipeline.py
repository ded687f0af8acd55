"""The order of the stages, with Prefect and Ray or, locally, without either.

Both ways run the same stage functions on the same worker classes and write the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError, StorageError
from distill_core.storage.store import ANOTHER_STORE, Store, probe
from flows import terminal
from flows.addresses import check_address, check_config
from flows.progress.display import Several, display
from flows.progress.event_log import EventLog
from flows.reports.report import write_report
from flows.reports.report_data import REPORT
from flows.runs.precision import warn_if_slow
from flows.runs.shard_selection import narrowed
from flows.status.status import RunStatus, run_status
from tasks.execution import Execution
from tasks.observer import Observer
from tasks.pools.provider import PoolProvider
from tasks.run import Run, create_run, default_name
from tasks.runs.heartbeat import Heartbeat
from tasks.runs.run_stage import run_stage
from tasks.stages.names import StageId
from tasks.stages.table import stages_of

Only = Mapping[str, Sequence[str]]  # stage -> the shards to run; one that is not named runs whole


class Work:
    """One pass over a run: the stages share its workers, its observers and its selection."""

    def __init__(
        self,
        run: Run,
        *,
        execution: Execution,
        observer: Observer,
        pools: PoolProvider,
        only: Only,
    ) -> None:
        self.run, self.stopped = run, False
        self._execution, self._observer, self._pools = execution, observer, pools
        self._only = only

    def do(self, stage: StageId) -> None:
        """Do what a stage lacks; once a stage may not be built on, later ones do nothing."""
        if self.stopped:
            return
        narrowed = self._only.get(str(stage))
        status = run_stage(
            self.run,
            stage,
            execution=self._execution,
            observer=self._observer,
            pools=self._pools,
            only=None if narrowed is None else frozenset(narrowed),
        )
        self.stopped = not status.nothing_to_do(self._execution.allow_missing)

    def narrow(self, only: Only) -> None:
        """Leave out what another selection does not allow either."""
        self._only = narrowed(self._only, only)

    def report(self) -> None:
        """Write the report, unless the run is not that far."""
        if not self.stopped:
            write_report(self.run)


def prepare(config: RunConfig, store: Store, *, name: str | None, single_writer: bool) -> Run:
    """Register a run, in a store that has shown it can arbitrate between drivers.

    Raises:
        ConfigError: another config stands under this name, or the config holds credentials.
        StorageError: the store cannot be written, or lets two drivers create the same object.
    """
    check_config(config)
    store = replace(store, single_writer=single_writer)
    if not run_status(Run(name or default_name(config), config, store)).complete:
        check_store(store)
    return create_run(config, store, name)


def execution_of(tree: Mapping[str, Any]) -> Execution:
    """Check a plain tree of execution settings and freeze it.

    Raises:
        ConfigError: an unknown key, a value out of range, or an address that cannot be a store.
    """
    check_address(str(tree["store"]))
    try:
        return Execution.model_validate(dict(tree))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in problem["loc"]) or "execution"
        raise ConfigError(f"{path} = {problem['input']!r}: {problem['msg']}.") from None


def check_store(store: Store) -> None:
    """Refuse a store that cannot arbitrate; in single-writer mode, warn on stderr and go on.

    Raises:
        StorageError: it cannot be written, or cannot arbitrate.
    """
    if probe(store):
        return
    problem = (
        f"{store.url}: the store does not refuse to create the same object twice, so two drivers "
        f"could overwrite each other"
    )
    if not store.single_writer:
        raise StorageError(f"{problem}. {ANOTHER_STORE}")
    terminal.warn(
        f"{problem}. Going on in single-writer mode: start no second driver on this store."
    )


@contextmanager
def opened(
    run: Run, execution: Execution, only: Only, *, observers: Sequence[Observer] = ()
) -> Iterator[Work]:
    """Yield the work of one pass; workers start on first use and are gone afterwards.

    Raises:
        StorageError: the store cannot be written, or lets two drivers create the same object.
    """
    check_store(run.store)
    warn_if_slow(run.config, execution.device)
    pools = PoolProvider(execution)
    with Heartbeat(run, execution, workers=lambda: pools.workers) as heart:
        log = EventLog(run, driver=heart.id)
        try:
            with pools, display() as shown:
                observer = Several(shown, log, heart, *observers)
                yield Work(run, execution=execution, observer=observer, pools=pools, only=only)
        finally:
            log.flush()  # after the workers: a store that answers late must not keep them


def run_local(run: Run, execution: Execution, only: Only) -> None:
    """Run every stage in this process and its children."""
    with opened(run, execution, only) as work:
        for stage in stages_of(run.config):
            work.do(stage)
        work.report()


def run_with_prefect(run: Run, execution: Execution, only: Only) -> None:
    """Run every stage as a Prefect flow; its parameters are plain JSON, without credentials."""
    from flows.orchestration import api

    with api.connected():
        from flows.orchestration.prefect_flow import distill  # reads its settings on import

        parameters: dict[str, Any] = {
            "config": run.config.model_dump(mode="json"),
            "store": run.store.url,
            "run": run.name,
            "execution": execution.model_dump(mode="json", exclude={"store"}),
            "only": {stage: list(shards) for stage, shards in only.items()},
        }
        distill(**parameters)


def complete_run(run: Run, execution: Execution, only: Only | None = None) -> RunStatus:
    """Do what a run lacks and return how far it is; where nothing is to do, nothing is started."""
    run = replace(run, store=replace(run.store, single_writer=execution.single_writer))
    status, allowed = run_status(run), execution.allow_missing
    if not (status.complete or (not only and status.nothing_to_do(allowed))):
        start = run_local if execution.local else run_with_prefect
        start(run, execution, only or {})
        status = run_status(run)
    if status.nothing_to_do(allowed) and not run.store.exists(run.path(REPORT)):
        write_report(run)
    return status
