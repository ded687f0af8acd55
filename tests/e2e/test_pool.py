"""Several teachers: alternating in recover, together in relabel, with statistics of each."""

from __future__ import annotations

from pathlib import Path

from distill_core.storage.label_shards import decode_labels
from distill_core.storage.shard_store import ShardStore
from tests.support.pipeline import execute, manifest, tiny_run

POOL = (
    "squeeze.pool=[{model: {name: convnet3, width: 8}}]",
    "recover.teachers=[0, 1]",
    "relabel.teachers=[0, 1]",
    "relabel.scheme=features",
    "recover.terms={cross_entropy: 1.0, bn_statistics: 0.01, class_bn_statistics: 0.01}",
    "posttrain.sets=[distilled, random_real]",
)


def test_a_run_with_two_teachers_completes_and_shares_the_first_with_a_run_of_one(
    tmp_path: Path,
) -> None:
    alone = tiny_run(tmp_path)
    execute(alone, "ingest", "squeeze", "recover")
    run = tiny_run(tmp_path, *POOL)
    ran = execute(run).ran
    assert [shard for stage, shard in ran if stage == "squeeze"] == ["convnet3-w8_t1"]
    assert sum(stage == "statistics" for stage, _ in ran) == 2
    # Random real images know the first teacher only, so they are those of the run of one.
    shared = manifest(run, "recover.random_real").entries
    assert shared == manifest(alone, "recover.random_real").entries
    assert manifest(run, "recover") != manifest(alone, "recover")
    shard_store, entry = ShardStore(run.store, "relabel"), manifest(run, "relabel").entries[0]
    marker = shard_store.marker(entry.key)
    assert marker is not None
    labels = decode_labels(shard_store.load(marker, "parquet"))
    assert labels.values is not None
    assert labels.values.shape[-1] == 4 * 8 + 8  # the features of both, side by side
