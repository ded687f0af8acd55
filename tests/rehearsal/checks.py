"""The checks after a rehearsal; each returns the number of things checked, or raises."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import datetime

import numpy as np
import torch

from distill_core.labels.predict import predict_view
from distill_core.labels.views import sample_label_view
from distill_core.models.files import load_teacher
from distill_core.models.teacher import FrozenTeacher
from distill_core.storage.image_shards import ImageRows, decode_images
from distill_core.storage.label_shards import LabelRows, decode_labels
from distill_core.storage.manifest import Manifest, load_manifest
from distill_core.storage.shard_store import ShardStore
from tasks.run import Run

IMAGES = 100  # whose labels are made again
DECILES = 10  # of class ids, each with as many of them


def manifest(run: Run, name: str) -> Manifest:
    """Return a manifest that must be there."""
    found = load_manifest(run.store, run.name, name)
    assert found is not None, f"no manifest {name}"
    return found


def shards_of(run: Run, stage: str) -> Iterator[bytes]:
    """Yield the Parquet file of every shard of a stage, in plan order, hashed again."""
    shard_store = ShardStore(run.store, stage)
    for entry in manifest(run, stage).entries:
        marker = shard_store.marker(entry.key)
        assert marker is not None, entry.shard
        yield shard_store.load(marker, "parquet")


def every_class_id(run: Run) -> int:
    """Check that images and labels name every class once per image; return how many ids there are.

    A narrow integer would wrap: ids above 255, 32,767 or the like would come back as others.
    """
    expected = np.repeat(np.arange(run.config.data.num_classes), run.config.ipc)
    images = [decode_images(data).images for data in shards_of(run, "recover")]
    labels = [decode_labels(data) for data in shards_of(run, "relabel")]
    in_images = [image.label for shard in images for image in shard]
    in_labels = [image.label for shard in labels for image in shard.images]
    assert np.array_equal(in_images, expected)
    assert np.array_equal(in_labels, expected)
    for rows, shard in zip(labels, images, strict=True):
        assert rows.images == shard
        assert 0 <= rows.partners.min() <= rows.partners.max() < len(shard)
    return len(expected)


def labels_made_again(run: Run, *, seed: int = 0) -> int:
    """Describe random images again, as many in each decile of class ids; return how many.

    The draws come from the run's seed and the labels from the teacher's file; neither is read
    from the label shard they are compared with.
    """
    teacher, rng = _teacher(run), np.random.default_rng(seed)
    edges = np.linspace(0, run.config.data.num_classes, DECILES + 1).astype(int)
    chosen = np.concatenate(
        [
            rng.choice(np.arange(low, high), IMAGES // DECILES, replace=False)
            for low, high in itertools.pairwise(edges)
        ]
    )
    checked = 0
    for images, labels in zip(shards_of(run, "recover"), shards_of(run, "relabel"), strict=True):
        rows, stored = decode_images(images), decode_labels(labels)
        mine = [n for n, image in enumerate(rows.images) if image.label in chosen]
        if mine:
            _same_labels(run, teacher, rows, stored, mine)
            checked += len(mine)
    assert checked == len(chosen) * run.config.ipc
    return checked


def _teacher(run: Run) -> FrozenTeacher:
    shard_store = ShardStore(run.store, "squeeze")
    marker = shard_store.marker(manifest(run, "squeeze").entries[0].key)
    assert marker is not None
    files = shard_store.load(marker, "safetensors"), shard_store.load(marker, "json")
    return load_teacher(*files, device="cpu", precision=run.config.precision)


def _same_labels(
    run: Run, teacher: FrozenTeacher, rows: ImageRows, stored: LabelRows, mine: list[int]
) -> None:
    """Compare draws exactly and features to within one level of their 8 bits."""
    assert stored.values is not None
    assert stored.affine is not None
    pixels, config = torch.from_numpy(rows.pixels), run.config.relabel
    for position, view in enumerate(stored.views):
        drawn = sample_label_view(
            run.config.seed, rows.images, view, config, side=teacher.spec.side
        )
        assert np.array_equal(drawn.view.boxes[mine], stored.boxes[position][mine])
        assert np.array_equal(drawn.mix.partners[mine], stored.partners[position][mine])
        said = predict_view(teacher, pixels, drawn, config).features.numpy()[mine]
        kept = stored.values[position][mine] * stored.affine.scale + stored.affine.offset
        assert np.all(np.abs(said - kept) <= stored.affine.scale + 1e-6)


def idle_share(run: Run, stage: str, *, workers: int) -> float:
    """Return the share of a stage, from its first shard to its last, in which workers waited."""
    ends, seconds = [], []
    for name in run.store.names(run.path("events")):
        for line in run.store.read(run.path("events", name)).decode().splitlines():
            event = json.loads(line)
            if event["event"] == "job_finished" and event["stage"] == stage:
                ends.append(datetime.fromisoformat(event["at"]).timestamp())
                seconds.append(event["seconds"])
    wall = max(ends) - min(end - each for end, each in zip(ends, seconds, strict=True))
    return 1 - sum(seconds) / workers / wall
