"""The status of a stage: its complete and missing shards, from markers and manifests alone."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distill_core.storage.manifest import Manifest, load_manifest
from distill_core.storage.shard_store import ShardStore
from tasks.jobs import Job
from tasks.run import Run
from tasks.stages.inputs import Jobs, NotReady
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan, manifests_of
from tasks.stages.table import row_of, stages_of


@dataclass(frozen=True)
class StageStatus:
    """The status of one stage, as the store shows it."""

    stage: StageId
    total: int | None  # None: not known before an earlier stage is complete
    done: int
    failed: dict[str, dict[str, Any]] = field(default_factory=dict)  # by shard, not done since
    complete: bool = False  # its manifests exist, and nothing is missing in them
    pending: tuple[str, ...] = ()  # shards without a marker, in plan order
    keys: tuple[str, ...] = ()  # of the shards that are done
    missing: tuple[str, ...] = ()  # shards that its existing manifests go on without

    @property
    def has_manifest(self) -> bool:
        """Return whether its manifests exist and are right: later stages can build on them."""
        return self.complete or bool(self.missing)

    def nothing_to_do(self, allow_missing: int) -> bool:
        """Return whether a pass that allows so many missing shards has nothing to do here."""
        return self.has_manifest and len(self.missing) <= allow_missing


def stage_status(run: Run, stage: StageId) -> StageStatus:
    """Return how far a stage is."""
    if record := row_of(stage).record:
        if run.store.exists(run.path(record)):
            return StageStatus(stage, total=1, done=1, complete=True)
        return StageStatus(stage, total=1, done=0, pending=(run.config.data.name,))
    if not manifests_of(run, stage):
        return StageStatus(stage, total=0, done=0, complete=True)
    stored, done = manifests(run, stage), ShardStore(run.store, stage.kind).done()
    listed = tuple(entry.key for manifest in stored.values() for entry in manifest.entries)
    missing = missing_in(stored.values())
    # A manifest alone is not enough: a marker that was deleted since asks for its shard again.
    if stored and done.issuperset(listed) and not missing:
        return StageStatus(stage, total=len(listed), done=len(listed), complete=True, keys=listed)
    try:
        jobs = JobPlan(run).jobs(stage)
    except NotReady:
        return StageStatus(stage, total=None, done=0)
    every = [job for part in jobs.values() for job in part]
    pending = tuple(dict.fromkeys(job.shard for job in every if job.key not in done))
    failed = failures(run, stage)
    return StageStatus(
        stage,
        total=len(every),
        done=sum(job.key in done for job in every),
        failed={shard: failed[shard] for shard in pending if shard in failed},
        pending=pending,
        keys=tuple(dict.fromkeys(job.key for job in every if job.key in done)),
        missing=missing if _agree(run, stored, jobs, done) else (),
    )


def missing_in(stored: Iterable[Manifest]) -> tuple[str, ...]:
    """Return the shards that any of some manifests goes on without, each name once."""
    return tuple(dict.fromkeys(shard for manifest in stored for shard in manifest.missing))


def lacking(
    run: Run, manifest: StageId, part: Sequence[Job[Any]], done: Collection[str]
) -> tuple[str, ...]:
    """Return the shards that a manifest would have to go on without now.

    Args:
        run: the run.
        manifest: the manifest.
        part: its jobs.
        done: keys that have a marker.

    Returns:
        The shards that the stage before went on without, then those without a marker.
    """
    own = (job.shard for job in part if job.key not in done)
    return tuple(dict.fromkeys((*_inherited(run, manifest), *own)))


def _inherited(run: Run, manifest: StageId) -> tuple[str, ...]:
    """Return the shards that the stage before went on without; of one image set if it has some."""
    stages = stages_of(run.config)
    before = manifests_of(run, stages[stages.index(manifest.stage) - 1])
    if len(manifests_of(run, manifest.stage)) > 1:
        before = tuple(name for name in before if name.image_set == manifest.image_set)
    loaded = (load_manifest(run.store, run.name, str(name)) for name in before)
    return missing_in(stored for stored in loaded if stored is not None)


def _agree(run: Run, stored: Mapping[StageId, Manifest], jobs: Jobs, done: Collection[str]) -> bool:
    """Return whether manifests that lack shards still agree with the plan and the markers."""
    return bool(stored) and all(
        stored[name].missing == lacking(run, name, part, done)
        and [entry.key for entry in stored[name].entries] == [j.key for j in part if j.key in done]
        for name, part in jobs.items()
    )


def manifests(run: Run, stage: StageId) -> dict[StageId, Manifest]:
    """Return the manifests of a stage; none unless every one of them exists."""
    names = manifests_of(run, stage)
    stored = {name: load_manifest(run.store, run.name, str(name)) for name in names}
    complete = {name: manifest for name, manifest in stored.items() if manifest is not None}
    return complete if len(complete) == len(stored) else {}


def failures(run: Run, stage: StageId) -> dict[str, dict[str, Any]]:
    """Return the records of shards that used up their attempts; some may be done since."""
    prefix = f"{stage}."
    names = [n for n in run.store.names(run.path("failed")) if n.startswith(prefix)]
    records = (json.loads(run.store.read(run.path("failed", name))) for name in names)
    return {record["shard"]: record for record in records}
