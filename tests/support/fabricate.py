"""A finished run without any training: small files under real markers and manifests."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from distill_core.config.load import load_run
from distill_core.data.index import DatasetIndex, build_index, number_classes
from distill_core.data.index_commit import commit_index
from distill_core.data.index_table import SCHEMA
from distill_core.keys import NUMERICS
from distill_core.models.spec import TeacherSpec
from distill_core.sharding import ClassEntry, ImageId
from distill_core.storage.digest import sha256
from distill_core.storage.image_shards import ImageRows, encode_images, encode_pixels
from distill_core.storage.manifest import Manifest, load_manifest, save_manifest
from distill_core.storage.markers import Marker, ShardFacts
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.jobs import Job
from tasks.run import Run, create_run
from tasks.stages.dataset_record import record_dataset
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan

PRESET = """
preset: tiny
source: "made up <for tests>"
expected: not published
ipc: 2
data: {name: tiny, format: imagefolder, num_classes: 3, side: 8, mean: [0, 0, 0], std: [1, 1, 1]}
squeeze:
  model: {name: resnet18_small, width: 4}
  training:
    {epochs: 1, batch_size: 8, optimizer: {name: sgd, lr: 0.1}, augment: {flip: false}}
recover:
  init: gaussian
  batch_size: 3
  steps: 4
  lr: 0.1
  betas: [0.5, 0.9]
  terms: {cross_entropy: 1.0, bn_statistics: 0.1}
  first_layer_factor: 1
  crop: {mode: linear, low: 0.25}
  flip: false
  roll: {mode: "off"}
relabel: {views: 2, views_per_shard: 2, crop: [0.25, 1], flip: false, mix: {kind: none}}
posttrain:
  students: [{name: resnet18_small, width: 4}]
  seeds: [0, 1]
  epochs: 2
  batch_size: 6
  optimizer: {name: adamw, lr: 0.001}
  temperature: 4
  temperature_squared: false
"""
CLASSES = ("cat", "dog & co", "<b>owl</b>")  # hostile names: they must come out escaped
TEST_IMAGES = 12
ACCURACY = {"distilled": 40.0, "random_real": 30.0, "hard_labels": 20.0}


def preset_file(folder: Path) -> Path:
    """Write the preset and return its path."""
    path = folder / "tiny.yaml"
    path.write_text(PRESET)
    return path


def finished_run(folder: Path, *overrides: str) -> Run:
    """Return a run whose every stage has its manifest, with the keys of its plan."""
    config = load_run(str(preset_file(folder)), overrides)
    run = create_run(config, Store(str(folder / "store")), "tiny")
    index = _index()
    commit_index(run.store, index)
    record_dataset(run, index)
    finish(run)
    return run


def finish(run: Run) -> None:
    """Complete every stage of a run that comes after ingest."""
    for stage in ("squeeze", "recover", "relabel", "posttrain"):
        for name, jobs in JobPlan(run).jobs(StageId(stage)).items():
            markers = [_commit(run, name, job) for job in jobs]
            manifest = Manifest.of(str(name), markers, numerics=NUMERICS)
            save_manifest(run.store, run.name, manifest)


def marker_path(run: Run, stage: str) -> str:
    """Return the path of the marker of a stage's first shard."""
    found = load_manifest(run.store, run.name, stage)
    assert found is not None
    return ShardStore(run.store, stage).marker_path(found.entries[0].key)


def result(which: str, seed: int) -> dict[str, Any]:
    """Return the summary of one student; its last top-1 is that of the set plus twice the seed."""
    top1 = ACCURACY[which] + 2 * seed
    return {
        "student": "resnet18_small-w4",
        "seed": seed,
        "set": which,
        "last": {"top1": top1, "top5": 80.0},
        "ema": {"top1": top1 + 1, "top5": 81.0},
        "best": {"top1": top1 + 3, "top5": 83.0},
        "best_epoch": 1,
        "curve": [
            {"epoch": 1, "loss": 2.0, "top1": top1 + 3, "ema_top1": top1},
            {"epoch": 2, "loss": 1.0, "top1": top1, "ema_top1": top1 + 1},
        ],
        "images": 6,
        "steps": 2,
    }


def _index() -> DatasetIndex:
    """Return the index of a dataset with hostile class names."""
    classes = number_classes(CLASSES)
    train, test = (_table(classes, count) for count in (3, TEST_IMAGES // len(CLASSES)))
    return build_index("tiny", classes, train, test)


def _table(classes: Sequence[ClassEntry], count: int) -> pa.Table:
    """Return the rows of some images of each class."""
    names = [(entry, f"{number}") for entry in classes for number in range(count)]
    values = [
        (c.id, c.wnid, name, f"{c.id}/{name}", 0, 9, sha256(f"{count} {c.id} {name}".encode()))
        for c, name in names
    ]
    rows = [dict(zip(SCHEMA.names, (*value, "ok", "", ""), strict=True)) for value in values]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _commit(run: Run, name: StageId, job: Job[Any]) -> Marker:
    """Commit a job's shard with small files and the facts that a report shows."""
    files, rows, summary = _shard(run, name, job)
    return ShardStore(run.store, name.kind).commit(
        job.key,
        shard=job.shard,
        files=files,
        facts=ShardFacts(rows=rows, classes=3, seconds=90.0, device="cpu", summary=summary),
        clock=lambda: datetime(2030, 5, 6, 7, 8, tzinfo=UTC),
    )


def _shard(run: Run, name: StageId, job: Job[Any]) -> tuple[dict[str, bytes], int, dict[str, Any]]:
    """Return the files of a shard, its rows and its summary."""
    match name.kind:
        case "squeeze":
            teacher = {"model": "resnet18_small-w4", "accuracy": 91.5, "top5": 99.0, "epochs": 1}
            return {"safetensors": b"w", "json": _teacher(run)}, 1, teacher
        case "recover":
            number = int(name.image_set == "random_real")
            return {"parquet": _images(number), "trace.json": _trace()}, 6, {}
        case "relabel":
            return {"parquet": _images(2)}, 6, {}
        case _:
            summary = result(job.payload.set_name, job.payload.seed)
            return {"result.json": json.dumps(summary).encode()}, 1, summary


def _teacher(run: Run) -> bytes:
    spec = TeacherSpec(
        model=run.config.squeeze.model,
        num_classes=len(CLASSES),
        class_hash=JobPlan(run).index.class_hash,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        side=8,
        features=16,
        origin="nowhere",
    )
    return spec.to_json()


def _pixels(seed: int, count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 8, 8)).astype(np.uint8)


def _images(seed: int) -> bytes:
    names = tuple(ImageId(n, wnid, i) for n, wnid in enumerate(CLASSES) for i in range(2))
    rows = ImageRows(names, _pixels(seed, 6))
    losses = {"cross_entropy": np.zeros(6, np.float32)}
    return encode_images(rows, encoding="png", losses=losses)


def _trace() -> bytes:
    steps = [
        {"step": s, "low": s / 4, "lr": 0.1 - s / 50, "cross_entropy": 3.0 - s, "total": 4.0 - s}
        for s in range(3)
    ]
    picture = base64.b64encode(encode_pixels(_pixels(9, 1)[0], "png")).decode()
    shots = [
        {"wnid": CLASSES[0], "ipc_index": 0, "step": s, "low": s / 4, "png": picture}
        for s in (0, 2, 4)
    ]
    batches = [{"images": [["cat", 0]], "trace": steps}, {"images": [["cat", 1]], "trace": steps}]
    return json.dumps({"batches": batches, "snapshots": shots}).encode()
