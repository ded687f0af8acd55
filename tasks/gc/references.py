"""The references of a store: the shards and datasets that its runs and releases need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from distill_core.errors import DataError, DistillError, StorageError
from distill_core.storage.manifest import Manifest
from distill_core.storage.store import Store
from tasks.run import Run, open_run
from tasks.runs.stage_status import manifests, missing_in
from tasks.series import FILE as VERSION_FILE
from tasks.series import Version, version_of
from tasks.stages.inputs import NotReady, dataset_of
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan, manifests_of
from tasks.stages.table import stages_of

DATASETS = "datasets"
MANIFEST_SUFFIX = ".manifest.json"
Ref = tuple[str, str]  # (kind of stage, key of a shard), or (DATASETS, id)


@dataclass(frozen=True)
class References:
    """The shards and datasets that are referred to."""

    listed: frozenset[Ref]  # in manifests, and datasets that runs name
    planned: frozenset[Ref]  # by incomplete runs
    ingesting: frozenset[str]  # names of the data of runs without an ingested dataset

    def __contains__(self, ref: Ref | None) -> bool:
        """Return whether a shard or a dataset is needed, or may be needed soon."""
        if ref is None:
            return False
        ingesting = ref[0] == DATASETS and _name(ref[1]) in self.ingesting
        return ingesting or ref in self.listed or ref in self.planned


def find_references(store: Store) -> References:
    """Return the references of every run and release of a store.

    A run refers to the shards of its manifests and, for stages without one, to those of its plan as
    far as it is known. A release refers to the shards of the manifests in its folder.

    Raises:
        DataError: a run cannot be read, so its references are unknown.
        StorageError: the store refused a request.
    """
    runs = tuple(_runs(store))
    datasets, planned = _datasets(runs), set[Ref]()
    listed = set(datasets.listed)
    for run in runs:
        with _readable(f"runs/{run.name}"):
            listed.update(_listed(store, f"runs/{run.name}"))
            planned.update(_planned(run))
    for release in store.folders("published"):
        with _readable(f"published/{release}"):
            listed.update(_listed(store, f"published/{release}"))
    return replace(datasets, listed=frozenset(listed), planned=frozenset(planned))


def find_dataset_references(store: Store) -> References:
    """Return the datasets that runs and their previous versions name; this needs no plan."""
    return _datasets(_runs(store))


def _datasets(runs: Iterable[Run]) -> References:
    listed: set[Ref] = set()
    ingesting: set[str] = set()
    for run in runs:
        with _readable(f"runs/{run.name}"):
            if version := version_of(run):
                listed.add((DATASETS, version.dataset))
            try:
                listed.add((DATASETS, dataset_of(run)))
            except NotReady:
                ingesting.add(run.config.data.name)
    return References(frozenset(listed), frozenset(), frozenset(ingesting))


def _runs(store: Store) -> Iterator[Run]:
    for name in store.folders("runs"):
        with _readable(f"runs/{name}"):
            run = _run(store, name)
        if run is not None:
            yield run


def _run(store: Store, name: str) -> Run | None:
    """Return a run; a claimed version counts as a run before it is registered."""
    claim = f"runs/{name}/{VERSION_FILE}"
    if not store.exists(f"runs/{name}/run.yaml"):
        if store.exists(claim):
            version = Version.from_json(store.read(claim), where=store.uri(claim))
            return Run(name, version.requested, store)
        if not store.files(f"runs/{name}"):
            return None  # a run that was killed while it was registered leaves an empty folder
    return open_run(store, name)


def _listed(store: Store, folder: str) -> Iterator[Ref]:
    """Yield the shards of the manifests in a folder."""
    for name in store.names(folder):
        if name.endswith(MANIFEST_SUFFIX):
            path = f"{folder}/{name}"
            manifest = Manifest.from_json(store.read(path), where=store.uri(path))
            kind = StageId.parse(manifest.stage).kind
            yield from ((kind, entry.key) for entry in manifest.entries)


def _planned(run: Run) -> Iterator[Ref]:
    """Yield the shards that an incomplete run will need, as far as its plan is known.

    They include the teachers of other runs that its config names, even if the run is complete.
    """
    for number in range(1 + len(run.config.squeeze.pool)):
        teacher = run.config.squeeze.member(number)
        yield from (("squeeze", key) for key in (teacher.reuse, teacher.start) if key is not None)
    plan = JobPlan(run)
    for stage in stages_of(run.config):
        existing = manifests(run, stage)
        expected = set(manifests_of(run, stage))
        if existing.keys() == expected and not missing_in(existing.values()):
            continue
        try:
            jobs = plan.jobs(stage)
        except NotReady:
            continue
        yield from ((stage.kind, job.key) for part in jobs.values() for job in part)


@contextmanager
def _readable(folder: str) -> Iterator[None]:
    """Turn the errors of a run or a release that cannot be read into one that names its folder."""
    try:
        yield
    except StorageError:
        raise
    except (DistillError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder}: its references cannot be read ({error}), so nothing is removed. "
            f"Repair it, or delete the folder {folder} if you no longer need it."
        ) from error


def _name(dataset: str) -> str:
    """Return the name in a dataset's id, ``<name>-<hash>``."""
    return dataset.rpartition("-")[0]
