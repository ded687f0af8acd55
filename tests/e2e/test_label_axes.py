"""A run that uses every label axis at once, through the workers and the store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill_core.storage.label_shards import decode_labels
from distill_core.storage.shard_store import ShardStore
from tasks.run import Run
from tests.support.pipeline import execute, manifest, same_teacher, tiny_run

POOL = (
    "squeeze.pool=[{model: {name: convnet3, width: 8}}]",
    "recover.teachers=[0, 1]",
    "recover.committee={weighting: {priors: [56.4, 42.3], temperature: 5}}",
    "relabel.teachers=[0, 1]",
    "relabel.weighting={priors: [56.4, 42.3], temperature: 10}",
    "relabel.views=30",
    "relabel.prune=0.9",
    "relabel.patches=2",
    "relabel.rand_augment={operations: 2, magnitude: 6, spread: 1}",
    "posttrain.view_order=random",
    "posttrain.epochs=4",
    "posttrain.hard_epochs=[1, 2]",
    "posttrain.hard_smoothing=0.8",
    "posttrain.student_temperature=1.0",
    "posttrain.calibrate_student=true",
    "posttrain.sets=[distilled, hard_labels]",
)
SCHEMES = {
    "topk": ("relabel.scheme=topk", "relabel.topk=3"),
    "4 bits": ("relabel.scheme=features", "relabel.bits=4"),
}


def labels_of(run: Run) -> list[bytes]:
    shard_store = ShardStore(run.store, "relabel")
    markers = [shard_store.marker(entry.key) for entry in manifest(run, "relabel").entries]
    return [shard_store.load(marker, "parquet") for marker in markers if marker is not None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Return a run of each scheme, whole; both have the same images, so they share a store."""
    folder, runs = tmp_path_factory.mktemp("axes"), {}
    for scheme, overrides in SCHEMES.items():
        runs[scheme] = tiny_run(folder, *POOL, *overrides)
        execute(runs[scheme])
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_run_with_every_label_axis_completes_and_another_run_reuses_its_shards(
    scheme: str, made: dict[str, Run]
) -> None:
    run = made[scheme]
    files = labels_of(run)
    assert len(files) == 2 * 2  # image shards; 3 stored views, 2 in a file
    stored = [decode_labels(data) for data in files]
    assert sorted(list(rows.views) for rows in stored) == [[0, 1], [0, 1], [2], [2]]
    for rows in stored:
        assert rows.patches is not None
        assert rows.operations is not None
        assert rows.values is not None
        assert (rows.ids is not None) == (scheme == "topk")
        if rows.affine is not None:
            assert (rows.affine.bits, rows.values.shape[-1]) == (4, (4 * 8 + 8) // 2)
    shard_store = ShardStore(run.store, "posttrain")
    for entry in manifest(run, "posttrain").entries:
        marker = shard_store.marker(entry.key)
        assert marker is not None
        assert len(json.loads(shard_store.load(marker, "result.json"))["curve"]) == 2
    # More views: those that are stored keep their keys, the last, short range is made anew.
    folder = Path(run.store.url)
    larger = tiny_run(folder, *POOL, *SCHEMES[scheme], "relabel.views=40")
    ran = execute(larger, "ingest", "squeeze", "recover", "relabel").ran
    again = [shard for stage, shard in ran if stage == "relabel"]
    assert len(again) == 2
    assert all(shard.endswith("v0002-0003") for shard in again)


@pytest.mark.slow
def test_two_workers_write_the_same_labels_as_one(made: dict[str, Run], tmp_path: Path) -> None:
    run = same_teacher(made["topk"], tmp_path, *POOL, *SCHEMES["topk"])
    execute(run, "recover", "relabel", workers=2)
    assert manifest(run, "relabel") == manifest(made["topk"], "relabel")
