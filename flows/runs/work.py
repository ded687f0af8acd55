"""The stages of one pass over a run."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from distill_core.errors import ConfigError, DataError
from distill_core.storage.patience import Patience
from flows.estimate.memory.worker import worker_memory
from flows.reports.report import write_report
from flows.runs.checks.machine import check_joined_cluster
from flows.runs.checks.request import Request
from flows.runs.shard_selection import ShardSelection, narrowed
from tasks.execution import Execution
from tasks.observer import Observer
from tasks.pools.provider import PoolProvider
from tasks.run import Run
from tasks.runs.run_stage import run_stage
from tasks.runs.stage_status import stage_status
from tasks.stages.inputs import dataset_of
from tasks.stages.names import StageId


class Work:
    """One pass over a run: the stages share workers, observers and the selection of shards."""

    def __init__(
        self,
        run: Run,
        *,
        execution: Execution,
        observer: Observer,
        pools: PoolProvider,
        selection: ShardSelection,
        driver: str | None = None,
    ) -> None:
        self.run, self.stopped, self._driver = run, False, driver
        self._execution, self._observer, self._pools = execution, observer, pools
        self._selection = selection
        self._request: Request | None = None

    def run_stage(self, stage: StageId) -> None:
        """Run what a stage lacks; do nothing if an earlier stage lacks too much to go on."""
        if self.stopped:
            return
        shards = self._selection.get(str(stage))
        if shards is not None and not shards:
            self._end_before(stage)
            return
        request = self.known(stage)
        check_joined_cluster(request)
        memory = worker_memory(self.run.config, stage, self._execution, request.real_images)
        status = run_stage(
            self.run,
            stage,
            execution=self._execution.model_copy(update={"worker_memory": memory}),
            observer=self._observer,
            pools=self._pools,
            only=None if shards is None else frozenset(shards),
            driver=self._driver,
        )
        self.stopped = not status.nothing_to_do(self._execution.allow_missing)

    def known(self, stage: StageId) -> Request:
        """Return the run as checks see it, with its real images counted once they are ingested.

        Waits while the store is away. An index that cannot be read is left to the stage that needs
        it.

        Args:
            stage: that is to run.
        """
        if self._request is None or self._request.dataset is None:
            self._request = Request(self.run.config, self._execution, self.run.store)
            notice = partial(self._observer.stage_notice, str(stage))
            with suppress(ConfigError, DataError):
                patience = Patience(self._execution.outage_seconds)
                self._request = patience.repeat(self._counted, notice)
        return self._request

    def _counted(self) -> Request:
        dataset = dataset_of(self.run)
        request = Request(self.run.config, self._execution, self.run.store, dataset=dataset)
        _ = request.real_images  # counted here, and kept
        return request

    def _end_before(self, stage: StageId) -> None:
        """End the pass at a stage of which no shard is selected, if it has any to run."""
        if stage_status(self.run, stage).nothing_to_do(self._execution.allow_missing):
            return
        self.stopped = True
        self._observer.stage_notice(
            str(stage),
            "not started, because the selected shards belong to earlier stages. Run `distill "
            f"resume {self.run.name}` for everything that is left, or add --and-later.",
        )

    def narrow(self, selection: ShardSelection) -> None:
        """Run only the shards that this selection allows as well."""
        self._selection = narrowed(self._selection, selection)

    def report(self) -> None:
        """Write the report if every stage has run."""
        if not self.stopped:
            write_report(self.run)
