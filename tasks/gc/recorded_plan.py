"""The plan of a run, computed from manifests that have been read already."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property

from distill_core.data.index import DatasetIndex
from distill_core.data.index_files import open_index
from distill_core.errors import ConfigError
from distill_core.storage.manifest import Manifest
from distill_core.storage.store import Store
from tasks.run import Run
from tasks.stages.inputs import NotReady
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan

MANIFEST_SUFFIX = ".manifest.json"
Ref = tuple[str, str]  # (kind of stage, key of a shard), or ("datasets", id)
Manifests = Mapping[StageId, Manifest]  # by the name of the file


class SharedIndices:
    """The indices of a store's datasets; runs over one dataset share its index."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, DatasetIndex] = {}

    def __getitem__(self, dataset: str) -> DatasetIndex:
        """Return the index of a dataset; raises DataError if it cannot be read."""
        if dataset not in self._known:
            self._known[dataset] = open_index(self._store, dataset)
        return self._known[dataset]


class RecordedPlan(JobPlan):
    """The plan of a run whose manifests have been read already."""

    def __init__(self, run: Run, stored: Manifests, indices: SharedIndices) -> None:
        super().__init__(run)
        self._stored, self._indices = stored, indices

    @cached_property
    def index(self) -> DatasetIndex:
        """Return the index that the ingest stage committed."""
        return self._indices[self.dataset]

    def missing(self, stage: StageId) -> tuple[str, ...]:
        """Return the shards that a manifest goes on without; none before it exists."""
        return self._stored[stage].missing if stage in self._stored else ()

    def current(self, stage: StageId, manifest: Manifest) -> Manifest:
        """Return a manifest as it was read: what it names is kept, made again or not."""
        return manifest

    def recorded(self, stage: StageId) -> Manifest:
        """Return a manifest of this run.

        Raises:
            NotReady: it does not exist yet.
        """
        if stage not in self._stored:
            raise NotReady(f"{self.run.path(str(stage))}{MANIFEST_SUFFIX} is missing")
        return self._stored[stage]


def listed_in(store: Store, folder: str) -> tuple[Manifests, set[Ref]]:
    """Return the manifests in a folder, and the shards that they name.

    Raises:
        DataError, ConfigError: one cannot be read.
    """
    stored: dict[StageId, Manifest] = {}
    refs: set[Ref] = set()
    for name in store.names(folder):
        if name.endswith(MANIFEST_SUFFIX):
            path = f"{folder}/{name}"
            manifest = Manifest.from_json(store.read(path), where=store.uri(path))
            kind = StageId.parse(manifest.stage).kind
            refs.update((kind, entry.key) for entry in manifest.entries)
            with suppress(ConfigError):
                stored[StageId.parse(name.removesuffix(MANIFEST_SUFFIX))] = manifest
    return stored, refs
