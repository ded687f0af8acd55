"""A finished run without any training: small files under real markers and manifests."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from distill_core.config.load import load_run
from distill_core.sharding import ImageId
from distill_core.storage.image_shards import ImageRows, encode_images, encode_pixels
from distill_core.storage.manifest import Manifest, save_manifest
from distill_core.storage.markers import Marker, ShardFacts
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.run import Run, create_run

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


def finished_run(folder: Path) -> Run:
    """Return a run whose every stage has its manifest."""
    run = create_run(load_run(str(preset_file(folder))), Store(str(folder / "store")), "tiny")
    run.store.put(
        run.path("ingest.json"),
        json.dumps({"dataset": "tiny-0", "test_images": TEST_IMAGES}).encode(),
    )
    teacher = {"model": "resnet18_small-w4", "accuracy": 91.5, "top5": 99.0, "epochs": 1}
    _save(run, "squeeze", [_commit(run, "squeeze", "0", {"safetensors": b"w"}, summary=teacher)])
    for number, name in enumerate(("recover", "recover.random_real")):
        images = {"parquet": _images(number), "trace.json": _trace()}
        _save(run, name, [_commit(run, "recover", f"{number}", images, rows=6)])
    for number, name in enumerate(("relabel", "relabel.random_real")):
        _save(run, name, [_commit(run, "relabel", f"{number}", {"parquet": _images(2)}, rows=6)])
    _save(run, "posttrain", [_student(run, which, seed) for which in ACCURACY for seed in (0, 1)])
    return run


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


def _student(run: Run, which: str, seed: int) -> Marker:
    summary = result(which, seed)
    files = {"json": json.dumps(summary).encode()}
    return _commit(run, "posttrain", f"{which}{seed}", files, summary=summary)


def _commit(
    run: Run,
    stage: str,
    key: str,
    files: dict[str, bytes],
    *,
    rows: int = 1,
    summary: dict[str, Any] | None = None,
) -> Marker:
    return ShardStore(run.store, stage).commit(
        key,
        shard="c00000-00002_i000-001" if stage == "recover" else f"{stage}-{key}",
        files=files,
        facts=ShardFacts(rows=rows, classes=3, seconds=90.0, device="cpu", summary=summary or {}),
        clock=lambda: datetime(2030, 5, 6, 7, 8, tzinfo=UTC),
    )


def _save(run: Run, name: str, markers: list[Marker]) -> None:
    save_manifest(run.store, run.name, Manifest.of(name, markers))


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
