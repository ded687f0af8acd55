"""The inputs of planning: index, class shards, teachers and manifests of a run, read lazily.

A stage may write several manifests: the random-real baseline has image and label shards of its
own (``recover.random_real``) beside the distilled ones (``recover``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NoReturn

from distill_core.data.index import DatasetIndex
from distill_core.data.index_files import open_index
from distill_core.data.ingest import IngestPlan
from distill_core.errors import ConfigError, DataError
from distill_core.keys import ImageSet
from distill_core.models.spec import TeacherSpec
from distill_core.sharding import ClassShard, Group, ImageId, plan_shards
from distill_core.storage.label_rows import choose_scheme
from distill_core.storage.manifest import Manifest, ManifestEntry, load_manifest, manifest_path
from distill_core.storage.markers import Marker
from distill_core.storage.shard_store import ShardStore
from tasks.jobs import Job
from tasks.run import Run
from tasks.series import previous_index
from tasks.stages.dataset_record import DatasetRecord, read_dataset_record
from tasks.stages.names import StageId, round_of_image
from tasks.stages.reads import MarkerTimes, has_current_keys

Jobs = Mapping[StageId, tuple[Job[Any], ...]]  # manifest -> its jobs in plan order
Block = tuple[ImageId, ...]  # image 0 of each of its classes


class NotReady(ConfigError):
    """A stage was asked for before the one it reads was done."""


def shard_name(images: ImageSet, shard: ClassShard) -> str:
    """Return what people call a class shard of one set; unique within a stage."""
    return shard.name if images == "distilled" else f"{shard.name}_{images}"


def first_images(shard: ClassShard) -> Block:
    """Return image 0 of every class of a shard: its block of classes, whatever its range."""
    return tuple(ImageId(label, wnid, 0) for label, wnid in shard.classes)


def block_name(block: Block) -> str:
    """Return what people call a block of classes."""
    return f"c{block[0].label:05d}-{block[-1].label:05d}"


def classes_of(block: Block) -> Group:
    """Return the (class id, wnid) of every class of a block."""
    return tuple((image.label, image.wnid) for image in block)


class RunInputs:
    """The index, the class shards, the teacher and the manifests of one run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._students: dict[int, ManifestEntry] = {}
        self._marker_times = MarkerTimes(run.store)

    @cached_property
    def ingest(self) -> IngestPlan:
        """Return the parts of the dataset as it is now; its folders are listed."""
        return IngestPlan(self.run.config.data, previous_index(self.run))

    @cached_property
    def index(self) -> DatasetIndex:
        """Return the index that the ingest stage committed."""
        return open_index(self.run.store, self.dataset)

    @cached_property
    def dataset(self) -> str:
        """Return the id of the ingested dataset."""
        return dataset_of(self.run)

    @cached_property
    def test_images(self) -> int:
        """Return how many readable images the test split has."""
        return test_images_of(self.run)

    @cached_property
    def teachers(self) -> tuple[Marker, ...]:
        """Return the markers of all teachers, by number.

        Raises:
            DataError: the manifest lists another number of teachers than the config has.
        """
        shard_store = ShardStore(self.run.store, "squeeze")
        keys = [entry.key for entry in self.recorded(StageId("squeeze")).entries]
        expected = 1 + len(self.run.config.squeeze.pool)
        if len(keys) != expected:
            self._refuse_count(StageId("squeeze"), len(keys), expected)
        return tuple(_marker(shard_store, key) for key in keys)

    def _refuse_count(self, stage: StageId, found: int, expected: int) -> NoReturn:
        path = self.run.store.uri(manifest_path(self.run.name, str(stage)))
        raise DataError(
            f"{path}: lists {found} shards, expected {expected}. Delete it and run `distill resume "
            f"{self.run.name}`; finished shards are kept."
        )

    def digests(self, teachers: Sequence[int]) -> tuple[str, ...]:
        """Return the sha256 of the weights of some teachers."""
        return tuple(self.teachers[number].file("safetensors").sha256 for number in teachers)

    @cached_property
    def shards(self) -> tuple[ClassShard, ...]:
        """Return the class shards of the run."""
        config = self.run.config
        return plan_shards(
            self.index.classes,
            ipc=config.ipc,
            ipc_range=config.recover.ipc_range,
            batch_size=config.recover.batch_size,
            composition=config.recover.composition,
            shard_classes=config.recover.shard_classes,
        )

    def shards_of(self, number: int) -> tuple[ClassShard, ...]:
        """Return the class shards of the first rounds, up to `number`."""
        return tuple(shard for shard in self.shards if self.round_of(shard) <= number)

    def round_of(self, shard: ClassShard) -> int:
        """Return the round that makes a class shard; the first is 1."""
        return round_of_image(self.run.config, shard.grids[0][1][0])

    def student(self, number: int) -> ManifestEntry:
        """Return the student that was trained on the rounds before round `number`, 2 or more.

        Raises:
            NotReady: it is not trained yet.
        """
        if number not in self._students:
            stage = StageId("posttrain", number - 1)
            entries = self.manifest(stage).entries
            if len(entries) != 1:
                self._refuse_count(stage, len(entries), 1)
            (self._students[number],) = entries
        return self._students[number]

    @cached_property
    def scheme(self) -> str:
        """Return the label scheme, `auto` resolved for the teachers that label."""
        shard_store, config = ShardStore(self.run.store, "squeeze"), self.run.config
        specs = [
            TeacherSpec.from_json(shard_store.load(self.teachers[number], "json"))
            for number in config.relabel.teachers
        ]
        features = sum(spec.features for spec in specs)
        return choose_scheme(
            config.relabel.scheme,
            features=features,
            classes=config.data.num_classes,
            bits=config.relabel.bits,
        )

    def made(self, stage: StageId, planned: Mapping[str, str]) -> dict[str, ManifestEntry]:
        """Return the shards of a complete stage by name, without those that were given up.

        Args:
            stage: the stage.
            planned: the keys of its shards, by name.

        Raises:
            NotReady: its manifest does not exist yet, or lists other shards.
        """
        manifest = self.manifest(stage)
        listed = {entry.shard: entry for entry in manifest.entries}
        for name, key in planned.items():
            is_there = name in listed and (
                listed[name].key == key or not has_current_keys(manifest)
            )
            if not is_there and name not in manifest.missing:
                raise self._not_complete(stage)
        return {name: listed[name] for name in planned if name in listed}

    def missing(self, stage: StageId) -> tuple[str, ...]:
        """Return the shards that a manifest goes on without; none before it exists."""
        manifest = _load(self.run, stage)
        return () if manifest is None else manifest.missing

    def manifest(self, stage: StageId) -> Manifest:
        """Return a manifest of this run, with the files that its shards have now.

        Raises:
            NotReady: it does not exist yet.
        """
        return self.current(stage, self.recorded(stage))

    def current(self, stage: StageId, manifest: Manifest) -> Manifest:
        """Return a manifest with the files of shards that were made again since it was written."""
        path = manifest_path(self.run.name, str(stage))
        return self._marker_times.current(path, manifest, stage.kind)

    def recorded(self, stage: StageId) -> Manifest:
        """Return a manifest of this run as it is stored; see `manifest`."""
        manifest = _load(self.run, stage)
        if manifest is None:
            raise self._not_complete(stage)
        return manifest

    def _not_complete(self, stage: StageId) -> NotReady:
        return NotReady(
            f"runs/{self.run.name}: stage {stage.stage} is not complete yet. "
            f"`distill resume {self.run.name}` runs what is missing, in order."
        )


def _load(run: Run, stage: StageId) -> Manifest | None:
    return load_manifest(run.store, run.name, str(stage), sealed=run.sealed)


def dataset_of(run: Run) -> str:
    """Return the dataset id that the ingest stage wrote down for this run.

    Raises:
        NotReady: the dataset is not ingested yet.
        DataError: the record is damaged, or belongs to another run.
    """
    return _ingested(run).dataset


def test_images_of(run: Run) -> int:
    """Return how many readable images the run's test split has; see `dataset_of`."""
    record = _ingested(run)
    if record.test_images is not None:
        return record.test_images
    return open_index(run.store, record.dataset).count_readable("test")


def _ingested(run: Run) -> DatasetRecord:
    record = read_dataset_record(run)
    if record is None:
        raise NotReady(f"runs/{run.name}: the dataset is not ingested yet.")
    return record


def _marker(shard_store: ShardStore, key: str) -> Marker:
    marker = shard_store.marker(key)
    if marker is None:
        raise NotReady(
            f"{shard_store.uri(key)}: a manifest names this marker, "
            "but it is gone. `distill resume` makes the shard again."
        )
    return marker
