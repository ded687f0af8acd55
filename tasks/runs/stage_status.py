"""How far a stage of a run is, from markers and manifests alone."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distill_core.storage.manifest import Manifest, load_manifest
from distill_core.storage.shard_store import ShardStore
from tasks.jobs import Job
from tasks.run import Run
from tasks.stages.plan import (
    JobPlan,
    Jobs,
    NotReady,
    judged_in_blocks,
    kind_of,
    stages_of,
)


@dataclass(frozen=True)
class StageStatus:
    """What the store says of one stage."""

    stage: str
    total: int | None  # None: not known before an earlier stage is done
    done: int
    failed: dict[str, dict[str, Any]] = field(default_factory=dict)  # by shard, not done since
    complete: bool = False  # its manifests exist, and nothing is missing in them
    pending: tuple[str, ...] = ()  # shards without a marker, in plan order
    keys: tuple[str, ...] = ()  # of the shards that are done
    missing: tuple[str, ...] = ()  # what its manifests, which exist, go on without

    @property
    def has_manifest(self) -> bool:
        """Return whether its manifests stand and say what is: later stages can build on them."""
        return self.complete or bool(self.missing)

    def nothing_to_do(self, allow_missing: int) -> bool:
        """Return whether a pass that allows so many missing shards has nothing to do here."""
        return self.has_manifest and len(self.missing) <= allow_missing


def stage_status(run: Run, stage: str) -> StageStatus:
    """Return how far a stage is."""
    if stage == "ingest":
        if run.store.exists(run.path("ingest.json")):
            return StageStatus(stage, total=1, done=1, complete=True)
        return StageStatus(stage, total=1, done=0, pending=(run.config.data.name,))
    if not manifest_names(run, stage):
        return StageStatus(stage, total=0, done=0, complete=True)
    found, done = manifests(run, stage), ShardStore(run.store, kind_of(stage)).done()
    listed = tuple(entry.key for manifest in found.values() for entry in manifest.entries)
    missing = missing_in(found.values())
    # A manifest alone is not enough: a marker that was deleted since asks for its shard again.
    if found and done.issuperset(listed) and not missing:
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
        missing=missing if _say_what_is(run, found, jobs, done) else (),
    )


def missing_in(found: Iterable[Manifest]) -> tuple[str, ...]:
    """Return what any of some manifests goes on without, each name once."""
    return tuple(dict.fromkeys(shard for manifest in found for shard in manifest.missing))


def lacking(run: Run, name: str, part: Sequence[Job], done: Collection[str]) -> tuple[str, ...]:
    """Return what a manifest would have to go on without now.

    Args:
        run: the run.
        name: of the manifest.
        part: its jobs.
        done: keys that have a marker.

    Returns:
        What the stage before went on without, then the shards without a marker.
    """
    own = (job.shard for job in part if job.key not in done)
    return tuple(dict.fromkeys((*_inherited(run, name), *own)))


def _inherited(run: Run, name: str) -> tuple[str, ...]:
    """Return what the stage before went on without; for one set of images, in that set."""
    stage, dot, images = name.partition(".")
    stages = stages_of(run.config)
    before = stages[stages.index(stage) - 1]
    names = manifest_names(run, before) if before != "ingest" else ()
    if len(manifest_names(run, stage)) > 1:
        names = tuple(one for one in names if one == before + dot + images)
    loaded = (load_manifest(run.store, run.name, one) for one in names)
    return missing_in(manifest for manifest in loaded if manifest is not None)


def _say_what_is(
    run: Run, found: Mapping[str, Manifest], jobs: Jobs, done: Collection[str]
) -> bool:
    """Return whether manifests that lack shards still agree with the plan and the markers."""
    return bool(found) and all(
        found[name].missing == lacking(run, name, part, done)
        and [entry.key for entry in found[name].entries] == [j.key for j in part if j.key in done]
        for name, part in jobs.items()
    )


def manifests(run: Run, stage: str) -> dict[str, Manifest]:
    """Return the manifests of a stage by name; empty unless every one of them exists."""
    found = {name: load_manifest(run.store, run.name, name) for name in manifest_names(run, stage)}
    complete = {name: manifest for name, manifest in found.items() if manifest is not None}
    return complete if len(complete) == len(found) else {}


def manifest_names(run: Run, stage: str) -> tuple[str, ...]:
    """Return the names of the manifests that a stage of this run writes."""
    if stage == "statistics" and not run.config.recover.needs_class_statistics:
        return ()
    if stage == "validate" and not judged_in_blocks(run):
        return ()
    if stage not in stages_of(run.config):
        return ()
    baseline = "random_real" in run.config.posttrain.sets
    if stage in ("recover", "relabel") and baseline:
        return (stage, f"{stage}.random_real")
    return (stage,)


def failures(run: Run, stage: str) -> dict[str, dict[str, Any]]:
    """Return what is kept of shards that used up their attempts, by shard; some may be done now."""
    prefix = f"{stage}."
    names = [n for n in run.store.names(run.path("failed")) if n.startswith(prefix)]
    records = (json.loads(run.store.read(run.path("failed", name))) for name in names)
    return {record["shard"]: record for record in records}
