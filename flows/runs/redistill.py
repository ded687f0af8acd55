"""Re-distillation: a new version of a series when its input changed, and nothing when it did not.

There is no bookkeeping of what has to be made again. A new version is an ordinary run, and shards
whose keys are those of an earlier one have their markers already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from distill_core.config.schema import RunConfig
from distill_core.data.index import DatasetIndex, load_index
from distill_core.storage.store import Store
from flows.addresses import check_config
from flows.progress.display import display
from flows.reports.diff import Diff
from flows.reports.diff_report import FILE, write_diff
from flows.runs import pipeline
from flows.runs.inheritance import inherit, refuse_added
from flows.status.status import RunStatus, run_status
from tasks.execution import Execution
from tasks.policy import TeacherPolicy
from tasks.run import Run, create_run
from tasks.runs.stage_status import stage_status
from tasks.series import Version, claim, next_name, version_of, versions_of
from tasks.stages.ingest import ingest_observed, record_dataset
from tasks.stages.inputs import dataset_of
from tasks.stages.names import StageId
from tasks.stages.squeeze import check_inherited

Complete = Callable[[Run, Execution], RunStatus]


@dataclass(frozen=True)
class Outcome:
    """What a re-distillation came to."""

    run: Run  # the version that stands now, or is on its way
    changed: bool  # False: it stood before, and nothing was done
    diff: Diff | None  # against the version before; None: there is none, or results are missing


def redistill(
    config: RunConfig,
    store: Store,
    *,
    series: str,
    policy: TeacherPolicy,
    execution: Execution,
    complete: Complete | None = None,
) -> Outcome:
    """Distil a dataset again if it, or what is asked of it, has changed.

    The last version that has its results is what the new one stands on: its class ids go on, and
    by `policy` its teachers. A version of the same input that was interrupted is resumed; one of
    another input is left behind.

    Args:
        config: what is asked for; `squeeze.reuse` and `squeeze.start` are filled in here.
        store: where the series stands.
        series: its runs are called ``<series>-v0001`` and so on.
        policy: `keep` the teachers; `fine_tune` them on the data as they are now; or
            `squeeze_again`, which carries over nothing but class ids.
        execution: where and how jobs run.
        complete: does what a run lacks; by default `flows.runs.pipeline.complete_run`.

    Raises:
        ConfigError: `keep` with a class that the teacher has no output for, a teacher that does
            not fit what is asked, or credentials in the config.
        DataError: the dataset is damaged, or has another number of classes.
    """
    check_config(config)
    store = replace(store, single_writer=execution.single_writer)
    found = _look(config, store, series, policy)
    standing = found.standing()
    if standing is not None and run_status(standing).nothing_to_do(execution.allow_missing):
        if not store.exists(standing.path(FILE)):
            write_diff(standing)
        return Outcome(standing, changed=False, diff=None)
    run = standing or found.next_run()
    reached = (complete or pipeline.complete_run)(run, execution)
    return Outcome(run, changed=True, diff=write_diff(run) if reached.has_manifest else None)


@dataclass(frozen=True)
class _Found:
    """What is asked for, the series so far, and the dataset as it is now."""

    config: RunConfig
    store: Store
    series: str
    policy: TeacherPolicy
    history: tuple[Run, ...]
    base: Run | None  # the last version that has its results
    index: DatasetIndex  # with the class ids of the base

    def standing(self) -> Run | None:
        """Return the last version if another one would be what it is already."""
        if self.base is None or self.base is not self.history[-1]:
            return None
        version = version_of(self.base)
        # Who squeezes again wants a teacher of its own: one that was inherited is another config.
        again = self.policy == "squeeze_again"
        stands = self.base.config if version is None or again else version.requested
        same = stands == self.config and dataset_of(self.base) == self.index.id
        return self.base if same else None

    def next_run(self) -> Run:
        """Return the version to complete: one of this input that was interrupted, or a new one."""
        config, version = self.config, None
        if self.base is not None:
            config = inherit(self.config, self.base, self.policy)
            dataset = dataset_of(self.base)
            version = Version(self.base.name, dataset, self.policy, requested=self.config)
        check_inherited(config, self.index, self.store)
        run = self._interrupted(config, version) or self._register(config, version)
        if not stage_status(run, StageId("ingest")).complete:
            record_dataset(run, self.index)
        return run

    def _interrupted(self, config: RunConfig, version: Version | None) -> Run | None:
        last = self.history[-1] if self.history else None
        if last is None or last.config != config or version_of(last) != version:
            return None
        ingested = stage_status(last, StageId("ingest")).complete
        return last if not ingested or dataset_of(last) == self.index.id else None

    def _register(self, config: RunConfig, version: Version | None) -> Run:
        pipeline.check_store(self.store)
        run = Run(next_name(self.store, self.series), config, self.store)
        if version is not None:
            claim(run, version)
        return create_run(config, self.store, run.name)


def _look(config: RunConfig, store: Store, series: str, policy: TeacherPolicy) -> _Found:
    """Index the dataset as it is now, its class ids those of the version before."""
    history = versions_of(store, series)
    base = next((run for run in reversed(history) if run_status(run).has_manifest), None)
    before = None if base is None else load_index(store, dataset_of(base))
    if before is not None and policy == "keep":
        refuse_added(config.data, before)
    with display() as shown:
        index = ingest_observed(config.data, store, before, shown)
    return _Found(config, store, series, policy, history, base, index)
