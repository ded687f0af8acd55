"""The shards that one run needs, however little of its records is left.

A run names shards in three places: its manifests, its plan, and the logs of its drivers. Everything
that any of them names is kept, whether the run is finished or not.

The plan of a stage is computed from the manifests of the stages before it. Where such a manifest is
missing, or lists other shards than its stage has, all plans after it are unknown or wrong. As long
as a run is in that state, *every* shard is kept of each kind of stage that the run may have worked
on: of the stages up to the last one that left any trace in the run's folder (a manifest, the record
of a driver, an event, a failure, the report). `distill resume` ends that state, and so does
deleting the folder of the run.

A registered run without any trace is in that state as well, if its dataset is not recorded or the
shards that it would make first exist: it was just registered, or somebody deleted its records.

A run that is simply not complete holds nothing back: the plan of the stage it has reached is known,
and no later stage has left a trace. Shards of later stages that it makes during a collection are
younger than the period of grace.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

from distill_core.errors import ConfigError, DistillError, StorageError
from distill_core.storage.shard_store import ShardStore
from tasks.gc.recorded_plan import MANIFEST_SUFFIX, RecordedPlan, Ref, SharedIndices, listed_in
from tasks.run import FILE as RUN_FILE
from tasks.run import Run
from tasks.stages.dataset_record import FILE as DATASET
from tasks.stages.expected import Expected
from tasks.stages.inputs import Jobs, NotReady
from tasks.stages.names import StageId
from tasks.stages.plan import manifests_of
from tasks.stages.table import row_of, stages_of

REPORT = "report"  # folder in that of a run; written when every stage is complete
PLAN_ERRORS = (DistillError, LookupError, ValueError, TypeError, AttributeError, OSError)


@dataclass
class RunReferences:
    """The references of one run."""

    listed: set[Ref] = field(default_factory=set)  # by manifests and logs
    planned: set[Ref] = field(default_factory=set)
    held: dict[str, str] = field(default_factory=dict)  # kinds of which every shard stays: reason
    doubtful: bool = False  # its records disagree, so it may have another dataset than they name


@dataclass(frozen=True)
class _Planned:
    """The plan of a stage."""

    jobs: Jobs
    problem: str = ""  # why there is no plan
    has_failed: bool = False  # not only because an earlier stage is incomplete


def references_of(run: Run, indices: SharedIndices) -> RunReferences:
    """Return everything that a run refers to; see the description of this module.

    Raises:
        DataError, ConfigError: a manifest cannot be read.
        StorageError: the store refused a request.
    """
    return _Reading(run, indices).read()


class _Reading:
    """Compares the plan of a run with its manifests, stage by stage."""

    def __init__(self, run: Run, indices: SharedIndices) -> None:
        self._run = run
        self._stages = stages_of(run.config)
        self._stored, listed = listed_in(run.store, run.path())
        self._plan = RecordedPlan(run, self._stored, indices)
        self._refs = RunReferences(listed=listed)

    def read(self) -> RunReferences:
        """Return the references."""
        refs, unsettled, reached = self._refs, "", self._reached
        refs.listed.update(_teachers(self._run))
        if reason := self._lost_parts():
            refs.held.setdefault("ingest", f"{self._run.path()}: {reason}")
        for number, stage in enumerate(self._stages):
            names = self._manifests_of(stage)
            if not names:
                continue
            plan = self._planned(stage)
            refs.planned.update(
                (stage.kind, job.key) for part in plan.jobs.values() for job in part
            )
            if unsettled:
                self._hold(stage, unsettled, certain=number <= reached)
            elif unsettled := self._disagreement(stage, names, plan):
                if reached < 0 and self._may_have_begun(stage, plan):
                    reached = len(self._stages)
                begun = refs.doubtful or plan.problem or any(name in self._stored for name in names)
                passed = number < reached or (begun and number == reached)
                self._hold(stage, unsettled, certain=passed or plan.has_failed)
            else:
                refs.doubtful = refs.doubtful or self._keys_differ(plan.jobs)
        if unsettled:
            refs.listed.update(_logged(self._run))
        return refs

    def _lost_parts(self) -> str:
        """Return why the parts of its dataset are not known here; empty if they are.

        Only drivers that list the dataset know them then.
        """
        if not self._run.store.exists(self._run.path(DATASET)):
            return "its dataset is not ingested yet"
        manifest = self._stored.get(StageId("ingest"))
        if manifest is not None and manifest.entries:
            return ""
        try:
            index = self._plan.index
            has_parts = index.of_parts and any(index.tables[s].num_rows for s in index.tables)
        except StorageError:
            raise
        except PLAN_ERRORS:
            has_parts = True  # it cannot be read
        return "its manifest of ingestion names no shards" if has_parts else ""

    def _may_have_begun(self, stage: StageId, plan: _Planned) -> bool:
        """Return whether a run without any trace may have made shards, in its first stage."""
        store = self._run.store
        if not store.exists(self._run.path(RUN_FILE)):
            return False  # a version that was claimed and never registered
        done = ShardStore(store, stage.kind).done()
        planned = (job.key for part in plan.jobs.values() for job in part)
        return bool(plan.problem) or any(key in done for key in planned)

    def _manifests_of(self, stage: StageId) -> tuple[StageId, ...]:
        """Return the manifests that a stage should have."""
        try:
            return manifests_of(self._run, stage)
        except StorageError:
            raise
        except PLAN_ERRORS:
            return (stage,)  # whether it has any depends on a dataset that cannot be read

    def _planned(self, stage: StageId) -> _Planned:
        """Return the plan of a stage, or the reason why there is none."""
        try:
            return _Planned(self._plan.jobs(stage))
        except StorageError:
            raise
        except NotReady as error:
            return _Planned({}, f"the plan of {stage} is not known yet ({error})")
        except PLAN_ERRORS as error:
            reason = str(error) if isinstance(error, DistillError) else repr(error)
            return _Planned({}, f"the plan of {stage} is not known ({reason})", has_failed=True)

    def _disagreement(self, stage: StageId, names: Iterable[StageId], plan: _Planned) -> str:
        """Return why the manifests of a stage are not those of its plan; empty if they are."""
        for name in names:
            manifest, where = self._stored.get(name), f"{name}{MANIFEST_SUFFIX}"
            if manifest is None:
                return plan.problem if plan.has_failed else f"{where} is missing"
            if plan.problem:
                if len(manifest.entries) != _expected_without_data(self._run, stage):
                    return plan.problem
                continue
            planned = {job.shard for job in plan.jobs.get(name, ())}
            listed = {entry.shard for entry in manifest.entries}
            if planned - set(manifest.missing) != listed or bool(planned) != bool(listed):
                return f"{where} does not list the shards of its stage"
        return ""

    def _keys_differ(self, jobs: Jobs) -> bool:
        """Return whether shards have other keys than planned: the config or the code changed."""
        return any(
            {entry.key for entry in self._stored[name].entries} - {job.key for job in part}
            for name, part in jobs.items()
        )

    def _hold(self, stage: StageId, reason: str, *, certain: bool) -> None:
        """Keep every shard of a kind, if the run may have worked on it."""
        if certain:
            self._refs.held.setdefault(stage.kind, f"{self._run.path()}: {reason}")
            self._refs.doubtful = True

    @cached_property
    def _reached(self) -> int:
        """Return the number of the last stage that left a trace in the folder of the run."""
        run, last = self._run, len(self._stages) - 1
        if run.store.names(run.path(REPORT)):
            return last
        texts = {str(name.stage) for name in self._stored}
        texts.update(name.partition(".")[0] for name in run.store.names(run.path("failed")))
        # A damaged record is a trace as well, so its bytes are searched and not parsed.
        logs = [data for folder in ("drivers", "events") for data in _read_all(run, folder)]
        for number in range(last, -1, -1):
            text = str(self._stages[number])
            if text in texts or any(f'"{text}"'.encode() in data for data in logs):
                return number
        return -1


def _teachers(run: Run) -> Iterator[Ref]:
    """Yield the teachers of other runs that the config of a run names."""
    for number in range(1 + len(run.config.squeeze.pool)):
        teacher = run.config.squeeze.member(number)
        yield from (("squeeze", key) for key in (teacher.reuse, teacher.start) if key is not None)


def _expected_without_data(run: Run, stage: StageId) -> int | None:
    """Return how many shards a stage has if that follows from the config alone; None if not."""
    if stage.kind != "squeeze":
        return None
    return row_of(stage).expected(Expected(run.config, (), None, online=False), stage)


def _logged(run: Run) -> Iterator[Ref]:
    """Yield the shards that drivers of a run have finished, as far as their logs are readable."""
    for event in _events(run):
        if event.get("event") == "job_finished":
            with suppress(ConfigError):
                yield StageId.parse(str(event.get("stage"))).kind, str(event.get("key"))


def _events(run: Run) -> Iterator[dict[str, object]]:
    """Yield the events in the logs of a run; lines that are not events are skipped."""
    for line in chain.from_iterable(data.splitlines() for data in _read_all(run, "events")):
        with suppress(ValueError, RecursionError):
            event = json.loads(line)
            if isinstance(event, dict):
                yield event


def _read_all(run: Run, folder: str) -> Iterator[bytes]:
    for name in run.store.names(run.path(folder)):
        yield run.store.read(run.path(folder, name))
