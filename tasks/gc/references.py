"""The references of a store: the shards and datasets that its runs and releases need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from distill_core.data.archives import STAGE as ARCHIVES
from distill_core.data.archives import archive_key
from distill_core.errors import DataError, DistillError, StorageError
from distill_core.storage.object_names import MENTIONED
from distill_core.storage.store import Store
from tasks.gc.grammar import DATASETS, DESCRIPTION, RUNS, SCHEDULES, recognise
from tasks.gc.recorded_plan import Ref, SharedIndices, listed_in
from tasks.gc.run_references import references_of
from tasks.run import Run, read_run
from tasks.series import FILE as VERSION_FILE
from tasks.series import Version, version_of
from tasks.stages.inputs import NotReady, dataset_of

PUBLISHED = "published"
RECORD_FOLDERS = ("", "drivers", "events", "failed", "report")  # in the folder of a run


@dataclass(frozen=True)
class References:
    """The shards and datasets that are referred to."""

    listed: frozenset[Ref]  # in manifests and logs, and datasets that runs name
    planned: frozenset[Ref]  # by runs
    names: frozenset[str]  # of the data of runs whose dataset is not known for certain
    held: Mapping[str, str] = field(default_factory=dict)  # kinds of which every shard stays: why

    def __contains__(self, ref: Ref | None) -> bool:
        """Return whether a shard or a dataset is needed, or may be needed."""
        if ref is None:
            return False
        if ref[0] == DATASETS and _name(ref[1]) in self.names:
            return True
        return ref in self.listed or ref in self.planned or ref[0] in self.held


def find_references(store: Store) -> References:
    """Return the references of every run and release of a store.

    A release refers to the shards of the manifests in its folder, a schedule to the teachers that
    its settings name; for runs, see `run_references`.

    Raises:
        DataError: a run cannot be read, so its references are unknown.
        StorageError: the store refused a request.
    """
    runs = tuple(_runs(store))
    datasets, indices = _datasets(runs), SharedIndices(store)
    listed, planned, names = set(datasets.listed), set[Ref](), set(datasets.names)
    held: dict[str, str] = {}
    for run in runs:
        with _readable(run.path()):
            refs = references_of(run, indices)
        listed |= refs.listed
        planned |= refs.planned
        held = refs.held | held
        if refs.doubtful:
            names.add(run.config.data.name)
    _check_links(store, PUBLISHED)
    for release in store.folders(PUBLISHED):
        with _readable(f"{PUBLISHED}/{release}"):
            listed |= listed_in(store, f"{PUBLISHED}/{release}")[1]
    listed |= set(_teachers_of_schedules(store))
    listed |= set(_read_from_archives(store, listed))
    return References(_with_archives(listed), _with_archives(planned), frozenset(names), held)


def _read_from_archives(store: Store, refs: Iterable[Ref]) -> Iterator[Ref]:
    """Yield the parts whose decompressed archives datasets need, damaged descriptions included.

    A dataset may have been read from another copy of an archive than the runs that name it.
    """
    for path in (f"{DATASETS}/{name}/{DESCRIPTION}" for kind, name in refs if kind == DATASETS):
        if store.exists(path):
            yield from ((ARCHIVES, key.decode()) for key in MENTIONED.findall(store.read(path)))


def _with_archives(refs: Iterable[Ref]) -> frozenset[Ref]:
    """Return references, and the decompressed archives that belong to parts of datasets."""
    refs = frozenset(refs)
    return refs | {(ARCHIVES, archive_key(key)) for kind, key in refs if kind == ARCHIVES}


def find_dataset_references(store: Store) -> References:
    """Return the datasets that runs and their previous versions name; this needs no plan."""
    return _datasets(_runs(store))


def _teachers_of_schedules(store: Store) -> Iterator[Ref]:
    """Yield the teachers that the settings of schedules may name, damaged settings included."""
    for file in store.files(SCHEDULES):
        if file.regular:
            yield from (
                ("squeeze", key.decode()) for key in MENTIONED.findall(store.read(file.path))
            )


def _datasets(runs: Iterable[Run]) -> References:
    listed: set[Ref] = set()
    names: set[str] = set()
    for run in runs:
        with _readable(run.path()):
            if version := version_of(run):
                listed.add((DATASETS, version.dataset))
            try:
                dataset = dataset_of(run)
            except NotReady:
                names.add(run.config.data.name)
                continue
            listed.add((DATASETS, dataset))
            if not run.store.exists(f"{DATASETS}/{dataset}/{DESCRIPTION}"):
                names.add(run.config.data.name)  # its record may be damaged
    return References(frozenset(listed), frozenset(), frozenset(names))


def _runs(store: Store) -> Iterator[Run]:
    _check_links(store, RUNS)
    for name in store.folders(RUNS):
        with _readable(f"{RUNS}/{name}"):
            run = _run(store, name)
        if run is not None:
            yield run


def _run(store: Store, name: str) -> Run | None:
    """Return a run; a claimed version counts as a run before it is registered.

    Returns:
        None: the folder holds no record of a run. One that was killed while it was registered
            leaves such a folder.
    """
    folder = f"{RUNS}/{name}"
    claim = f"{folder}/{VERSION_FILE}"
    if not store.exists(f"{folder}/run.yaml"):
        if store.exists(claim):
            version = Version.from_json(store.read(claim), where=store.uri(claim))
            return Run(name, version.requested, store)
        folders = [f"{folder}/{inner}".rstrip("/") for inner in RECORD_FOLDERS]
        if not any(recognise(f"{path}/{file}") for path in folders for file in store.names(path)):
            return None
    return read_run(store, name)


def _check_links(store: Store, folder: str) -> None:
    """Refuse a folder of records that is a symbolic link into nothing, or has one in it.

    Raises:
        DataError: the target of a link is missing, for instance since a disk is not mounted.
    """
    for path in (file.path for file in store.files(folder) if not file.regular):
        parent, _, name = path.rpartition("/")
        if path.count("/") < 2 and name not in store.folders(parent) and not store.exists(path):
            raise DataError(
                f"{store.uri(path)}: a symbolic link without a target, so references to shards may "
                "be missing and nothing is removed. Mount the disk that it points to, or delete "
                "the link."
            )


@contextmanager
def _readable(folder: str) -> Iterator[None]:
    """Turn the errors of a run or a release that cannot be read into one that names its folder."""
    try:
        yield
    except StorageError:
        raise
    except (DistillError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{folder}: its references cannot be read ({error}), so nothing is removed. "
            f"Repair it, or delete the folder {folder} if you no longer need it."
        ) from error


def _name(dataset: str) -> str:
    """Return the name in a dataset's id, ``<name>-<hash>``."""
    return dataset.rpartition("-")[0]
