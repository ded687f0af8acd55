"""Re-distillation: a new version of a series when its input has changed.

Nothing records which shards have to be made again. A new version is an ordinary run, and the
shards whose keys equal those of an earlier version have their markers already.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, replace

from distill_core.config.addresses import check_config
from distill_core.config.data import DataConfig
from distill_core.config.schema import RunConfig
from distill_core.config.split_rule import parse_rule
from distill_core.data.detection.resolve import resolve_run
from distill_core.data.index import DatasetIndex
from distill_core.data.index_files import open_index
from distill_core.data.readers.formats import open_reader
from distill_core.errors import ConfigError
from distill_core.storage.store import Store
from flows.progress.display import display
from flows.reports.diff import FILE, Diff, write_diff
from flows.reports.unused import Unused, unused
from flows.runs import last_version, pipeline, preflight
from flows.runs.inherited_teachers import inherit
from flows.runs.last_version import has_settings
from flows.status.status import RunStatus, run_status
from tasks.execution import Execution
from tasks.policy import TeacherPolicy
from tasks.run import Run, create_run
from tasks.runs.ingest_ahead import Ingested, ingest_ahead
from tasks.runs.same_shards import same_shards
from tasks.runs.seen_classes import unseen_by_teachers
from tasks.runs.stage_status import stage_status
from tasks.series import Version, claim, next_name, version_of, versions_of
from tasks.stages.inputs import dataset_of
from tasks.stages.names import StageId
from tasks.stages.squeeze import check_inherited

Complete = Callable[[Run, Execution], RunStatus]


@dataclass(frozen=True)
class Outcome:
    """The result of a re-distillation."""

    run: Run  # the current version, complete or not
    changed: bool  # False: the current version was up to date, and nothing was done
    diff: Diff | None  # from the previous version; None: there is none, or results are missing
    unused: Unused | None = None  # a changed input that leaves the current version as it is


def redistill(
    config: RunConfig,
    store: Store,
    *,
    series: str,
    policy: TeacherPolicy,
    execution: Execution,
    complete: Complete,
) -> Outcome:
    """Make a new version of a series if a change of the dataset or the config has an effect on it.

    A new version continues the class ids of the last version that has its results and, depending
    on `policy`, its teachers. An interrupted version of the same input is resumed; one of another
    input is left as it is.

    Args:
        config: of the new version; `squeeze.reuse` and `squeeze.start` are set here.
        store: store of the series.
        series: name of the series; its runs are called ``<series>-v0001`` and so on.
        policy: `keep` the teachers; `fine_tune` them on the current data; or `squeeze_again`,
            which continues nothing but class ids.
        execution: where and how jobs run.
        complete: runs what a version lacks and returns its status.

    Raises:
        ConfigError: `keep` with a class that the teacher does not know, a teacher that does not
            fit the config, or credentials in the config.
        DataError: the dataset is damaged, or has another number of classes.
    """
    check_config(config)
    config = resolve_run(config)
    store = replace(store, single_writer=execution.single_writer)
    request = _index(config, store, series, policy, execution)
    current = request.current()
    if current is not None and run_status(current).nothing_to_do(execution.allow_missing):
        if not store.exists(current.path(FILE)):
            write_diff(current)
        request.remember(current)
        return Outcome(current, changed=False, diff=None)
    if current is None and request.base is not None and (change := request.unused(request.base)):
        request.remember(request.base)
        return Outcome(request.base, changed=False, diff=None, unused=change)
    run = current or request.next_run()
    status = complete(run, execution)
    return Outcome(run, changed=True, diff=write_diff(run) if status.has_manifest else None)


@dataclass(frozen=True)
class _Request:
    """A request for a new version: the config, the series so far, and the current dataset."""

    config: RunConfig
    store: Store
    policy: TeacherPolicy
    history: tuple[Run, ...]
    name: str  # of the next version; taken with the history, so that two at once meet in `claim`
    base: Run | None  # the last version that has its results
    ingested: Ingested  # with the class ids of the base

    @property
    def index(self) -> DatasetIndex:
        """Return the index of the current dataset."""
        return self.ingested.index

    def current(self) -> Run | None:
        """Return the last version if it has the requested config and the current dataset."""
        if self.base is None or self.base is not self.history[-1]:
            return None
        same = has_settings(self.base, self.config, self.policy)
        return self.base if same and dataset_of(self.base) == self.index.id else None

    def unused(self, base: Run) -> Unused | None:
        """Return the change of the input if no shard of a version depends on it."""
        config = inherit(self.config, base, self.policy)
        check_inherited(config, self.index, self.store)
        if not same_shards(base, config, self.index):
            return None
        return unused(base, self.config, self.index, self.policy)

    def remember(self, version: Run) -> None:
        """Record that the current dataset leaves a version as it is."""
        keys = [job.key for job in self.ingested.jobs]
        last_version.remember(version, self.config, self.policy, keys=keys, index=self.index)

    def next_run(self) -> Run:
        """Return the version to complete: an interrupted one of the same input, or a new one."""
        config, version = self.config, None
        if self.base is not None:
            config = inherit(self.config, self.base, self.policy)
            dataset = dataset_of(self.base)
            version = Version(self.base.name, dataset, self.policy, requested=self.config)
        check_inherited(config, self.index, self.store)
        run = self._interrupted(config, version) or self._register(config, version)
        if not stage_status(run, StageId("ingest")).complete:
            self.ingested.record(run)
        if (other := dataset_of(run)) != self.index.id:
            raise ConfigError(
                f"runs/{run.name}: another re-distillation of this series, with dataset {other} in "
                f"place of {self.index.id}, started at the same time. Run this one again when the "
                "other is complete."
            )
        return run

    def _interrupted(self, config: RunConfig, version: Version | None) -> Run | None:
        last = self.history[-1] if self.history else None
        if last is None or last.config != config or version_of(last) != version:
            return None
        ingested = stage_status(last, StageId("ingest")).complete
        return last if not ingested or dataset_of(last) == self.index.id else None

    def _register(self, config: RunConfig, version: Version | None) -> Run:
        pipeline.check_store(self.store)
        run = Run(self.name, config, self.store)
        if version is not None:
            claim(run, version)
        return create_run(config, self.store, run.name)


def _index(
    config: RunConfig, store: Store, series: str, policy: TeacherPolicy, execution: Execution
) -> _Request:
    """Index the current dataset with the class ids of the previous version."""
    history, name = versions_of(store, series), next_name(store, series)
    base = next((run for run in reversed(history) if run_status(run).has_manifest), None)
    before = None if base is None else open_index(store, dataset_of(base))
    if before is not None and policy == "keep":
        assert base is not None
        refuse_unknown(config.data, before, unseen_by_teachers(base, history))
    inherited = before is not None and policy != "squeeze_again"
    preflight.check_request(
        preflight.Request(
            config,
            execution,
            store,
            known=() if before is None else before.classes,
            complete=frozenset({"squeeze"} if inherited else ()),
        )
    )
    with display() as progress:
        ingested = ingest_ahead(
            config, store, before, execution=execution, observer=progress, base=base, name=name
        )
    return _Request(config, store, policy, history, name, base, ingested)


def refuse_unknown(data: DataConfig, before: DatasetIndex, unseen: Set[str]) -> None:
    """Refuse classes that a kept teacher does not know, before any image is read.

    Args:
        data: the current dataset.
        before: the index of the previous version.
        unseen: classes that the teacher has an output for and was trained without.

    Raises:
        ConfigError: the dataset has a class that no previous version had, or one that was removed
            when the teacher was trained.
    """
    if data.split is not None and parse_rule(data.split).drops_classes:
        return  # the classes that are left are known once their images are counted
    present, known = open_reader(data).classes(), set(before.class_names)
    remedy = "Use policy fine_tune or squeeze_again, or leave the class out."
    if added := [name for name in present if name not in known]:
        raise ConfigError(
            f"{data.path or data.format}: class {added[0]!r} is new ({len(added)} such classes), "
            f"and the teacher that policy keep takes over has no output for it. {remedy}"
        )
    if back := [name for name in present if name in unseen]:
        raise ConfigError(
            f"{data.path or data.format}: class {back[0]!r} came back ({len(back)} such classes), "
            "and the teacher that policy keep takes over was trained while the class was removed. "
            f"{remedy}"
        )
