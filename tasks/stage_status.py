"""How far a stage of a run is, from markers and manifests alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from distill_core.storage.manifest import Manifest, load_manifest
from distill_core.storage.markers import StageShelf
from tasks.plans import JobPlan, NotReady, judged_in_blocks
from tasks.runs import Run


@dataclass(frozen=True)
class StageStatus:
    """What the store says of one stage."""

    stage: str
    total: int | None  # None: not known before an earlier stage is done
    done: int
    failed: dict[str, dict[str, Any]] = field(default_factory=dict)  # by shard, not done since
    complete: bool = False  # its manifests exist
    pending: tuple[str, ...] = ()  # shards without a marker, in plan order
    keys: tuple[str, ...] = ()  # of the shards that are done


def stage_status(run: Run, stage: str) -> StageStatus:
    """Return how far a stage is."""
    if stage == "ingest":
        if run.store.exists(run.path("ingest.json")):
            return StageStatus(stage, total=1, done=1, complete=True)
        return StageStatus(stage, total=1, done=0, pending=(run.config.data.name,))
    if not manifest_names(run, stage):
        return StageStatus(stage, total=0, done=0, complete=True)
    found, done = manifests(run, stage), StageShelf(run.store, stage).done()
    listed = tuple(entry.key for manifest in found.values() for entry in manifest.entries)
    # A manifest alone is not enough: a marker that was deleted since asks for its shard again.
    if found and done.issuperset(listed):
        return StageStatus(stage, total=len(listed), done=len(listed), complete=True, keys=listed)
    try:
        jobs = JobPlan(run).jobs(stage)
    except NotReady:
        return StageStatus(stage, total=None, done=0)
    every = [job for part in jobs.values() for job in part]
    pending = tuple(dict.fromkeys(job.shard for job in every if job.key not in done))
    keys = tuple(dict.fromkeys(job.key for job in every if job.key in done))
    failed = failures(run, stage)
    return StageStatus(
        stage,
        total=len(every),
        done=sum(job.key in done for job in every),
        failed={shard: failed[shard] for shard in pending if shard in failed},
        pending=pending,
        keys=keys,
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
