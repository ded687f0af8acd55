"""Running one stage: shards without a marker are run, then the manifest is written.

The same function serves `--local`, Ray, a first run, a resume and a run that is already complete:
it reads the markers, runs what is missing, and writes the manifest last. Several drivers may do so
at once.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from distill_core.storage.patience import Patience
from distill_core.storage.shard_store import ShardStore
from tasks.execution import Execution
from tasks.jobs import Job
from tasks.observer import Observer
from tasks.pools.dispatch import dispatch
from tasks.pools.failures import DispatchResult, Failure
from tasks.pools.provider import PoolProvider
from tasks.run import Run
from tasks.runs.failure_records import keep_failures
from tasks.runs.finalise import close_stage, close_with_record, raise_failures
from tasks.runs.memory_advice import advised, advising
from tasks.runs.peers import Peers
from tasks.runs.stage_status import StageStatus, stage_status
from tasks.runs.worker_spec import worker_spec
from tasks.stages.ingest import changing
from tasks.stages.inputs import Jobs
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tasks.stages.table import row_of

T = TypeVar("T")

BEFORE_TEACHERS = ("ingest", "pack", "squeeze")  # kinds that are planned before there are teachers
PLANS = 3  # of one pass; more often, other drivers hardly complete the stages before
POLL_SECONDS = 5.0  # while another driver trains what is missing


def run_stage(
    run: Run,
    stage: StageId,
    *,
    execution: Execution,
    observer: Observer,
    pools: PoolProvider,
    only: frozenset[str] | None = None,
    driver: str | None = None,
) -> StageStatus:
    """Run the missing shards of a stage, then write its manifests; return if none is missing.

    Shards that are given up stay missing. If `execution.allow_missing` permits, the manifests are
    written without them; a later pass that permits fewer tries them again. Manifests are written
    only if the stage would still be planned as it was run: meanwhile, another driver may have
    completed what an earlier stage went on without. While the store is away, the driver waits for
    it as the workers do.

    Args:
        run: the run.
        stage: one of `stages_of` the config; the stages before it must have their manifests.
        execution: where and how jobs run.
        observer: receives events, in this thread.
        pools: starts workers when they are first needed.
        only: shards to run; other missing shards stay missing, and so does the manifest.
        driver: id of this driver's record.

    Raises:
        ShardsFailed: more shards used up their attempts than may be missing; others are complete.
    """
    stage_pass = _StagePass(run, stage, execution, observer, pools, only, driver)
    status = stage_pass.patient(lambda: stage_status(run, stage))
    if status.complete or (only is None and status.nothing_to_do(execution.allow_missing)):
        return status
    started = time.monotonic()
    has_manifest = stage_pass.run_and_close()
    failed, status = stage_pass.failed, stage_pass.patient(lambda: stage_status(run, stage))
    if not has_manifest:  # another driver may have done what failed here
        known = status.total is not None  # not for a dataset whose parts are not recorded yet
        left = {s: why for s, why in failed.items() if not known or s in status.pending}
        raise_failures(run, stage, left)
    observer.stage_finished(str(stage), time.monotonic() - started)
    return status


def _plan(run: Run, stage: StageId) -> tuple[JobPlan, Jobs]:
    """Return a plan of what the store has now, and the jobs of a stage in it."""
    plan = JobPlan(run)
    row_of(stage).check(plan)
    return plan, plan.jobs(stage)


def _keys(jobs: Jobs) -> dict[StageId, list[tuple[str, str]]]:
    """Return what a manifest would list: the name and the key of each job."""
    return {name: [(job.shard, job.key) for job in part] for name, part in jobs.items()}


@dataclass
class _StagePass:
    """One pass of this driver over a stage, which may be planned several times."""

    run: Run
    stage: StageId
    execution: Execution
    observer: Observer
    pools: PoolProvider
    only: frozenset[str] | None
    driver: str | None
    failed: dict[str, Failure] = field(default_factory=dict)  # by shard
    _given_up: set[str] = field(default_factory=set)  # their keys
    _noticed: set[str] = field(default_factory=set)
    _teachers: tuple[str, ...] = ()  # sha256 of their weights in the plan

    def _notice(self, text: str) -> None:
        if text not in self._noticed:  # once, however often the stage is planned
            self.observer.stage_notice(str(self.stage), text)
        self._noticed.add(text)

    def patient(self, call: Callable[[], T]) -> T:
        """Return the value of a call, which is repeated while the store is away."""
        notice = partial(self.observer.stage_notice, str(self.stage))
        return Patience(self.execution.outage_seconds).repeat(call, notice)

    def run_and_close(self) -> bool:
        """Run what is missing until the plan stays the same; return whether manifests are written.

        They are not if shards are missing, or if the plan changed `PLANS` times.

        Raises:
            DataError: all parts of the dataset were read, but it was another one each time.
        """
        for _ in range(PLANS):
            plan, jobs = self.patient(lambda: _plan(self.run, self.stage))
            for text in row_of(self.stage).notices(plan):
                self._notice(text)
            if self.stage.kind not in BEFORE_TEACHERS:
                self._teachers = plan.digests(range(len(plan.teachers)))
            self._run_missing(jobs)
            if (closed := self.patient(partial(self._close, jobs))) is not None:
                return closed
        if row_of(self.stage).record and not self.failed:
            raise changing(self.run.config.data)
        return False

    def _close(self, jobs: Jobs) -> bool | None:
        """Write the manifests, if enough is complete; None if the plan is another one now."""
        plan, now = _plan(self.run, self.stage)
        if _keys(now) != _keys(jobs):
            return None
        if row_of(self.stage).record:
            return close_with_record(self.stage, jobs, plan=plan, notice=self._notice)
        allowed = self.execution.allow_missing
        return close_stage(self.run, self.stage, jobs, allow_missing=allowed, plan=plan)

    def _run_missing(self, jobs: Jobs) -> None:
        """Run the jobs without a marker, or wait until another driver has; some may fail."""
        todo = self._missing(jobs)
        total = sum(len(part) for part in jobs.values())
        self.observer.stage_started(str(self.stage), total, total - len(todo))
        todo = [job for job in todo if self._is_wanted(job)]
        if not todo:
            return
        with Peers(self.run, self.stage, self.driver) as peers:
            while todo := self._await_peers(todo, jobs, peers):
                todo = self._run(todo, peers)

    def _run(self, todo: Sequence[Job[Any]], peers: Peers) -> list[Job[Any]]:
        """Run jobs, those of other drivers last; return those that are left to other drivers."""
        start = secrets.randbelow(len(todo))  # several drivers share the work, not double it
        ordered = [*todo[start:], *todo[:start]]
        ordered.sort(key=lambda job: peers.holder(job.shard) is not None)
        with advising(self.stage):
            result = self._dispatch(ordered, peers)
        failed = advised(result.failed, self.stage)
        self.failed |= failed
        self._given_up |= {job.key for job in todo if job.shard in failed}
        self.patient(lambda: keep_failures(self.run, self.stage, failed))
        return list(result.left)

    def _await_peers(self, todo: list[Job[Any]], jobs: Jobs, peers: Peers) -> list[Job[Any]]:
        """Wait while living drivers train all that is missing; return what is missing then."""
        if not row_of(self.stage).trains:
            return todo
        notified = False
        while todo and all(holders := [peers.holder(job.shard) for job in todo]):
            if not notified:
                names = sorted({f"{each.id} on {each.host}" for each in holders if each})
                text = f"waiting for driver {', '.join(names)}, which trains what is missing."
                self.observer.stage_notice(str(self.stage), text)
                self.pools.disconnect()  # the other driver may need the devices
                notified = True
            time.sleep(POLL_SECONDS)
            peers.read()
            todo = [job for job in self._missing(jobs) if self._is_wanted(job)]
        return todo

    def _is_wanted(self, job: Job[Any]) -> bool:
        return job.key not in self._given_up and (self.only is None or job.shard in self.only)

    def _missing(self, jobs: Jobs) -> list[Job[Any]]:
        """Return the jobs without a marker, from one listing, each key once."""
        done = self.patient(ShardStore(self.run.store, self.stage.kind).done)
        every = (job for part in jobs.values() for job in part)
        return list({job.key: job for job in every if job.key not in done}.values())

    def _dispatch(self, jobs: list[Job[Any]], peers: Peers) -> DispatchResult:
        run, execution, row, name = self.run, self.execution, row_of(self.stage), str(self.stage)
        spec = worker_spec(run, self.stage, execution, teachers=self._teachers)
        processes = row.processes(run.config)
        if processes > 1:
            return self.pools.gang(
                spec,
                jobs,
                processes=processes,
                least=1 if row.fewer_processes else processes,
                stage=name,
                observer=self.observer,
                elsewhere=peers,
            )
        pool = self.pools.pool(spec, jobs=len(jobs), stage=name, observer=self.observer)
        return dispatch(
            jobs,
            pool,
            policy=execution.policy(),
            stage=name,
            observer=self.observer,
            elsewhere=peers,
        )
