"""Class statistics are a stage like the others: sharded by blocks of classes, read by recover."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.pipeline import execute, manifest, tiny_run
from tests.e2e.test_same_bytes import same_teacher

CLASS_WISE = (
    "recover.terms={cross_entropy: 1.0, class_bn_statistics: 0.01}",
    "recover.composition=one_class",
    "recover.batch_size=2",
    "posttrain.sets=[distilled]",
)
STAGES = ("statistics", "recover")


def test_workers_do_not_change_them_and_recover_follows_their_content(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "one", *CLASS_WISE)
    execute(run, "ingest", "squeeze", *STAGES)
    others = same_teacher(run, tmp_path / "three", *CLASS_WISE)
    execute(others, *STAGES, workers=3)
    for stage in STAGES:
        assert manifest(others, stage) == manifest(run, stage)
    assert [entry.rows for entry in manifest(run, "statistics").entries] == [10]

    plain = tiny_run(tmp_path / "one", *CLASS_WISE[1:])
    assert not [
        ran for ran in execute(plain, "ingest", "squeeze", *STAGES).ran if ran[0] == "statistics"
    ]
    keys = {entry.key for entry in manifest(run, "recover").entries}
    assert keys.isdisjoint(entry.key for entry in manifest(plain, "recover").entries)
