"""The status of a stage: its complete and missing shards, from markers and manifests alone.

Manifests are compared with the plan of the run. A manifest that lists other shards is out of date:
what its stage read was made again since, so the stage is not complete. The config of a run that was
registered by an older version has no digest; there, the difference may as well come from an edit
of its run.yaml, and is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distill_core.data.index_files import description_path
from distill_core.errors import DataError
from distill_core.storage.manifest import Manifest, load_manifest, manifest_path
from distill_core.storage.shard_store import ShardStore
from tasks.jobs import Job
from tasks.run import Run
from tasks.runs.failure_records import failures
from tasks.stages.dataset_record import read_dataset_record
from tasks.stages.inputs import Jobs, NotReady
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan, manifests_of
from tasks.stages.reads import has_current_keys
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
    made_with: tuple[Mapping[str, str], ...] = ()  # environments of the shards in its manifests

    @property
    def has_manifest(self) -> bool:
        """Return whether its manifests exist and are right: later stages can build on them."""
        return self.complete or bool(self.missing)

    def nothing_to_do(self, allow_missing: int) -> bool:
        """Return whether a pass that allows so many missing shards has nothing to do here."""
        return self.has_manifest and len(self.missing) <= allow_missing


def stage_status(run: Run, stage: StageId, plan: JobPlan | None = None) -> StageStatus:
    """Return how far a stage is.

    Args:
        run: the run.
        stage: one of its stages.
        plan: of this run, to share what it has read; by default a new one.

    Raises:
        DataError: a record of the run is damaged, or its manifests differ from its plan and the
            config may have been edited.
    """
    if row_of(stage).record:
        return _status_by_record(run, stage)
    if not manifests_of(run, stage):
        return StageStatus(stage, total=0, done=0, complete=True)
    stored, done = manifests(run, stage), ShardStore(run.store, stage.kind).done()
    if stored and not all(map(has_current_keys, stored.values())):
        return _status_by_manifests(stage, stored, done)
    plan = plan or JobPlan(run)
    try:
        jobs = plan.jobs(stage)
    except NotReady:
        return StageStatus(stage, total=None, done=0)
    every = [job for part in jobs.values() for job in part]
    pending = tuple(dict.fromkeys(job.shard for job in every if job.key not in done))
    failed, agrees = failures(run, stage), _agree(run, stored, jobs, done)
    settled = agrees or pending or run.sealed
    if stored and not settled and not _follows_content(plan, stage, stored, jobs):
        raise DataError(difference(run, stored, jobs))
    # A manifest over other ones than those that exist now is written again.
    agrees = agrees and all(is_chained(plan, name, manifest) for name, manifest in stored.items())
    # A shard that was made again may have other files than the manifest lists.
    agrees = agrees and all(plan.current(name, each) == each for name, each in stored.items())
    missing = missing_in(stored.values())
    return StageStatus(
        stage,
        total=len(every),
        done=sum(job.key in done for job in every),
        failed={shard: failed[shard] for shard in pending if shard in failed},
        # A manifest alone is not enough: a marker that was deleted since asks for its shard again.
        complete=agrees and not missing,
        pending=pending,
        keys=tuple(dict.fromkeys(job.key for job in every if job.key in done)),
        missing=missing if agrees else (),
        made_with=_environments(stored),
    )


def _status_by_record(run: Run, stage: StageId) -> StageStatus:
    """Return the status of ingestion without a listing of the dataset, which could take minutes."""
    record = read_dataset_record(run)
    stored = load_manifest(run.store, run.name, str(stage), sealed=run.sealed)
    entries = () if stored is None else stored.entries
    done = ShardStore(run.store, stage.kind).done() if entries else frozenset()
    pending = tuple(entry.shard for entry in entries if entry.key not in done)
    if record is None or not run.store.exists(description_path(record.dataset)):
        return StageStatus(stage, total=None, done=0, failed=failures(run, stage))
    total = len(entries) or 1  # older versions wrote no manifest of this stage
    return StageStatus(
        stage,
        total,
        total - len(pending),
        complete=not pending,
        pending=pending,
        keys=tuple(entry.key for entry in entries if entry.key in done),
    )


def _follows_content(
    plan: JobPlan, stage: StageId, stored: Mapping[StageId, Manifest], jobs: Jobs
) -> bool:
    """Return whether manifests of an older version differ from the plan without any edit.

    They do if shards of an earlier stage were made again with other files, and its manifest is
    about to be written again. If it lists shards that this version made, only keys differ.
    """
    run, stages = plan.run, stages_of(plan.run.config)
    found = [
        (name, manifest)
        for each in stages[: stages.index(stage)]
        for name, manifest in manifests(run, each).items()
    ]
    if any(plan.current(name, manifest) != manifest for name, manifest in found):
        return True
    for name, part in jobs.items():
        if sorted(entry.shard for entry in stored[name].entries) != sorted(j.shard for j in part):
            return False
    return any(entry.keyed_by_content for _, manifest in found for entry in manifest.entries)


def is_chained(plan: JobPlan, name: StageId, manifest: Manifest) -> bool:
    """Return whether the manifests that a manifest builds on still list what they did.

    Those of older versions do not record that, and count as chained. A manifest that is gone is
    reported by itself.
    """
    if manifest.built_on is None:
        return True
    current = plan.built_on(name)
    return all(current.get(each, sha) == sha for each, sha in manifest.built_on.items())


def _status_by_manifests(
    stage: StageId, stored: Mapping[StageId, Manifest], done: Collection[str]
) -> StageStatus:
    """Return how far a stage is whose manifests cannot be compared with the plan."""
    entries = [entry for manifest in stored.values() for entry in manifest.entries]
    pending = tuple(entry.shard for entry in entries if entry.key not in done)
    missing = missing_in(stored.values())
    return StageStatus(
        stage,
        total=len(entries),
        done=len(entries) - len(pending),
        complete=not pending and not missing,
        pending=pending,
        keys=tuple(entry.key for entry in entries if entry.key in done),
        missing=() if pending else missing,
        made_with=_environments(stored),
    )


def _environments(stored: Mapping[StageId, Manifest]) -> tuple[Mapping[str, str], ...]:
    return tuple(each for manifest in stored.values() for each in manifest.made_with)


def difference(run: Run, stored: Mapping[StageId, Manifest], jobs: Jobs) -> str:
    """Return a sentence about the first manifest that does not list the shards of the plan."""
    for name, part in jobs.items():
        listed = {entry.shard: entry.key for entry in stored[name].entries}
        planned = {job.shard: job.key for job in part if job.shard not in stored[name].missing}
        differing = sorted(dict(listed.items() ^ planned.items()))
        if differing or len(listed) < len(stored[name].entries):
            return (
                f"{run.store.uri(manifest_path(run.name, str(name)))}: lists {len(listed)} shards, "
                f"the plan of the run has {len(planned)}; they differ in "
                f"{', '.join(differing[:3]) or 'repeated names'}. If run.yaml was edited, restore "
                f"it; otherwise delete the manifest and run `distill resume {run.name}`, which "
                "keeps finished shards."
            )
    return f"runs/{run.name}: its manifests go on without other shards than its failures name."


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
    loaded = (load_manifest(run.store, run.name, str(name), sealed=run.sealed) for name in before)
    return missing_in(stored for stored in loaded if stored is not None)


def _agree(run: Run, stored: Mapping[StageId, Manifest], jobs: Jobs, done: Collection[str]) -> bool:
    """Return whether manifests exist that agree with the plan and the markers."""
    return bool(stored) and all(
        stored[name].missing == lacking(run, name, part, done)
        and [(entry.shard, entry.key) for entry in stored[name].entries]
        == [(job.shard, job.key) for job in part if job.key in done]
        for name, part in jobs.items()
    )


def manifests(run: Run, stage: StageId) -> dict[StageId, Manifest]:
    """Return the manifests of a stage; none unless every one of them exists."""
    names = manifests_of(run, stage)
    stored = {
        name: load_manifest(run.store, run.name, str(name), sealed=run.sealed) for name in names
    }
    complete = {name: manifest for name, manifest in stored.items() if manifest is not None}
    return complete if len(complete) == len(stored) else {}
