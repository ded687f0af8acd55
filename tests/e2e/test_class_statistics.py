"""Class statistics are a stage like the others: sharded by blocks of classes, read by recover."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pipeline import execute, manifest, same_teacher, tiny_run

ONE_SET = "posttrain.sets=[distilled]"
CLASS_WISE = (
    "recover.terms={cross_entropy: 1.0, class_bn_statistics: 0.01}",
    "recover.composition=one_class",
    "recover.batch_size=2",
    ONE_SET,
)
CONVOLUTIONS = (  # in two blocks of classes, so that all classes together are read from both
    "recover.terms={cross_entropy: 1.0, bn_statistics: 0.05, class_bn_statistics: 0.05, "
    "conv_statistics: 0.05, class_conv_statistics: 0.05, "
    "patch_statistics: 0.05, class_patch_statistics: 0.05}",
    "recover.convolutions={first_layer_factor: 10, drop_rate: 0.4}",
    "recover.batch_size=5",
    "recover.shard_classes=5",
    ONE_SET,
)
BARYCENTRE = (
    "recover.terms={cross_entropy: 1.0, feature_barycentre: 1.0}",
    "recover.barycentre={points: 2}",
    "recover.composition=class_major",
    "recover.ipc_range=2",
    ONE_SET,
)
ORIGINALS = (
    "recover.terms={feature_originals: 1.0}",
    "recover.originals={images: 2, layer: 4}",
    "recover.init=mosaic",
    "recover.mosaic={images: 12, crops: 1, factor: 2, scale: [1, 1]}",
    ONE_SET,
)
STAGES = ("statistics", "recover")


@pytest.mark.parametrize(
    ("settings", "blocks"),
    [
        pytest.param(CLASS_WISE, [10], id="batch norms"),
        pytest.param(CONVOLUTIONS, [5, 5], id="convolutions", marks=pytest.mark.slow),
        pytest.param(BARYCENTRE, [10], id="barycentre"),
        pytest.param(ORIGINALS, [10], id="originals", marks=pytest.mark.slow),
    ],
)
def test_the_number_of_workers_does_not_change_class_statistics_and_recover_follows_them(
    tmp_path: Path, settings: tuple[str, ...], blocks: list[int]
) -> None:
    run = tiny_run(tmp_path / "one", *settings)
    execute(run, "ingest", "squeeze", *STAGES)
    others = same_teacher(run, tmp_path / "three", *settings)
    execute(others, *STAGES, workers=3)
    for stage in STAGES:
        assert manifest(others, stage) == manifest(run, stage)
    assert [entry.rows for entry in manifest(run, "statistics").entries] == blocks


def test_class_statistics_are_measured_only_for_terms_that_read_them(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "one", *CLASS_WISE)
    execute(run, "ingest", "squeeze", *STAGES)
    plain = tiny_run(tmp_path / "one", *CLASS_WISE[1:])
    assert not [
        ran for ran in execute(plain, "ingest", "squeeze", *STAGES).ran if ran[0] == "statistics"
    ]
    keys = {entry.key for entry in manifest(run, "recover").entries}
    assert keys.isdisjoint(entry.key for entry in manifest(plain, "recover").entries)
