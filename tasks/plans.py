"""Which jobs a stage of a run consists of, with the key of each; pure but for reading manifests.

A stage may write several manifests: the random-real baseline has image and label shards of its
own (``recover.random_real``) beside the distilled ones (``recover``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from distill_core.codec import choose_scheme
from distill_core.config.schema import SetName
from distill_core.data.index import DatasetIndex, load_index
from distill_core.errors import ConfigError
from distill_core.keys import (
    ImageSet,
    content_fingerprint,
    posttrain_key,
    recover_key,
    relabel_key,
    squeeze_key,
    statistics_key,
)
from distill_core.models.spec import TeacherSpec
from distill_core.plan import ClassShard, ImageId, plan_shards
from distill_core.storage.digest import file_sha256
from distill_core.storage.manifest import Manifest, load_manifest
from distill_core.storage.markers import Marker, StageShelf
from tasks.jobs import Job
from tasks.runs import Run

STAGES = ("ingest", "squeeze", "statistics", "recover", "relabel", "posttrain")
Jobs = Mapping[str, tuple[Job, ...]]  # manifest name -> its jobs in plan order


class NotReady(ConfigError):
    """A stage was asked for before the one it reads was done."""


def manifest_name(stage: str, images: ImageSet) -> str:
    """Return where a stage's shards of one set are listed."""
    return stage if images == "distilled" else f"{stage}.{images}"


def shard_name(images: ImageSet, shard: ClassShard) -> str:
    """Return what people call a class shard of one set; unique within a stage."""
    return shard.name if images == "distilled" else f"{shard.name}_{images}"


class JobPlan:
    """The jobs of one run, read lazily: later stages are known once earlier ones are done."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def jobs(self, stage: str) -> Jobs:
        """Return the jobs of a stage by manifest.

        Raises:
            NotReady: an earlier stage has no manifest yet.
        """
        return JOBS[stage](self)

    @cached_property
    def index(self) -> DatasetIndex:
        """Return the index that the ingest stage committed."""
        return load_index(self.run.store, self.dataset)

    @cached_property
    def dataset(self) -> str:
        """Return the id of the ingested dataset."""
        return dataset_of(self.run)

    @cached_property
    def teacher(self) -> Marker:
        """Return the marker of the teacher."""
        manifest = self._manifest("squeeze")
        return _marker(StageShelf(self.run.store, "squeeze"), manifest.entries[0].key)

    @cached_property
    def teacher_digests(self) -> tuple[str, ...]:
        """Return the sha256 of each teacher's weights."""
        return tuple(f.sha256 for f in self.teacher.files if f.suffix == "safetensors")

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
        )

    @property
    def image_sets(self) -> tuple[ImageSet, ...]:
        """Return the image sets that the run's post-train sets need."""
        if "random_real" in self.run.config.posttrain.sets:
            return ("distilled", "random_real")
        return ("distilled",)

    @cached_property
    def scheme(self) -> str:
        """Return the label scheme, `auto` resolved for this teacher."""
        shelf = StageShelf(self.run.store, "squeeze")
        spec = TeacherSpec.from_json(shelf.load(self.teacher, "json"))
        return choose_scheme(
            self.run.config.relabel.scheme, features=spec.features, classes=spec.num_classes
        )

    def squeeze(self) -> Jobs:
        """Return the one job that trains or imports the teacher."""
        config, index = self.run.config, self.index
        checkpoint = config.squeeze.checkpoint
        key = squeeze_key(
            config,
            class_hash=index.class_hash,
            train=content_fingerprint(index.fingerprints),
            test=index.test_fingerprint,
            checkpoint=None if checkpoint is None else file_sha256(checkpoint),
        )
        return {"squeeze": (Job(key, config.squeeze.model.title, {}),)}

    def statistics(self) -> Jobs:
        """Return one job per block of classes, if a term reads class statistics; else none."""
        if not self.run.config.recover.needs_class_statistics:
            return {}
        return {
            "statistics": tuple(
                Job(key, f"c{block[0].label:05d}-{block[-1].label:05d}", _named(block))
                for block, key in self._statistics.items()
            )
        }

    @cached_property
    def _statistics(self) -> dict[tuple[ImageId, ...], str]:
        """Return the key of each block's class statistics, by the block's first images."""
        blocks = dict.fromkeys(first_images(shard) for shard in self.shards)
        return {
            block: statistics_key(
                self.run.config,
                [image.wnid for image in block],
                teachers=self.teacher_digests,
                fingerprints=self.index.fingerprints,
            )
            for block in blocks
        }

    def recover(self) -> Jobs:
        """Return one job per class shard and image set."""
        return {
            manifest_name("recover", images): tuple(
                self._recover_job(images, shard) for shard in self.shards
            )
            for images in self.image_sets
        }

    def _recover_job(self, images: ImageSet, shard: ClassShard) -> Job:
        needed = self.run.config.recover_for(images).needs_class_statistics
        statistics = self._statistics[first_images(shard)] if needed else None
        key = recover_key(
            self.run.config,
            images,
            shard,
            teachers=self.teacher_digests,
            fingerprints=self.index.fingerprints,
            statistics=statistics,
        )
        batches = [[[i.label, i.wnid, i.ipc_index] for i in batch] for batch in shard.batches]
        payload = {"set": images, "batches": batches, "statistics": statistics}
        return Job(key, shard_name(images, shard), payload)

    def relabel(self) -> Jobs:
        """Return one job per image shard and range of views; none for online labels."""
        if self.scheme == "online":
            return {manifest_name("relabel", images): () for images in self.image_sets}
        return {
            manifest_name("relabel", images): tuple(
                self._relabel_job(entry.shard, entry.key, views)
                for entry in self._manifest(manifest_name("recover", images)).entries
                for views in self._view_ranges()
            )
            for images in self.image_sets
        }

    def _relabel_job(self, shard: str, images: str, views: range) -> Job:
        key = relabel_key(
            self.run.config,
            scheme=self.scheme,
            images=images,
            teachers=self.teacher_digests,
            views=views,
        )
        name = f"{shard}_v{views.start:04d}-{views.stop - 1:04d}"
        return Job(key, name, {"images": images, "views": [views.start, views.stop]})

    def _view_ranges(self) -> list[range]:
        total, step = self.run.config.relabel.views, self.run.config.relabel.views_per_shard
        return [range(start, min(start + step, total)) for start in range(0, total, step)]

    def posttrain(self) -> Jobs:
        """Return one job per student, seed and set."""
        config = self.run.config.posttrain
        jobs = tuple(
            self._posttrain_job(student, seed, images_of)
            for student in range(len(config.students))
            for seed in config.seeds
            for images_of in config.sets
        )
        return {"posttrain": jobs}

    def _posttrain_job(self, number: int, seed: int, images_of: SetName) -> Job:
        student = self.run.config.posttrain.students[number]
        source: ImageSet = "random_real" if images_of == "random_real" else "distilled"
        images = self._keys(manifest_name("recover", source))
        hard = images_of == "hard_labels"
        labels = [] if hard else self._keys(manifest_name("relabel", source))
        key = posttrain_key(
            self.run.config,
            student=student,
            seed=seed,
            images_of=images_of,
            images=images,
            labels=labels,
            teachers=[] if hard else self.teacher_digests,
            class_hash=self.index.class_hash,
            test=self.index.test_fingerprint,
        )
        payload = {
            "student": number,
            "seed": seed,
            "set": images_of,
            "images": images,
            "labels": labels,
        }
        return Job(key, f"{student.title}_{images_of}_s{seed}", payload)

    def _keys(self, name: str) -> list[str]:
        return [entry.key for entry in self._manifest(name).entries]

    def _manifest(self, name: str) -> Manifest:
        manifest = load_manifest(self.run.store, self.run.name, name)
        if manifest is None:
            raise NotReady(
                f"runs/{self.run.name}: stage {name.split('.')[0]} is not done yet. "
                f"`distill resume {self.run.name}` runs what is missing, in order."
            )
        return manifest


JOBS = {
    "squeeze": JobPlan.squeeze,
    "statistics": JobPlan.statistics,
    "recover": JobPlan.recover,
    "relabel": JobPlan.relabel,
    "posttrain": JobPlan.posttrain,
}


def first_images(shard: ClassShard) -> tuple[ImageId, ...]:
    """Return image 0 of every class of a shard: its block of classes, whatever its range."""
    names = {image.label: image.wnid for batch in shard.batches for image in batch}
    return tuple(ImageId(label, names[label], 0) for label in sorted(names))


def _named(block: tuple[ImageId, ...]) -> dict[str, Any]:
    return {"classes": [[image.label, image.wnid] for image in block]}


def dataset_of(run: Run) -> str:
    """Return the dataset id that the ingest stage wrote down for this run."""
    path = run.path("ingest.json")
    if not run.store.exists(path):
        raise NotReady(f"runs/{run.name}: the dataset is not ingested yet.")
    return str(json.loads(run.store.read(path))["dataset"])


def _marker(shelf: StageShelf, key: str) -> Marker:
    marker = shelf.marker(key)
    if marker is None:
        raise ConfigError(
            f"{shelf.store.uri(f'{shelf.stage}/_done/{key}.json')}: a manifest names this marker, "
            "but it is gone. Restore it, or start the run under another --name."
        )
    return marker
