"""Mosaics are selected shard by shard, as images are recovered, with the same bytes."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.pipeline import execute, manifest, tiny_run
from tests.e2e.test_same_bytes import same_teacher

MOSAIC = (
    "recover.init=mosaic",
    "recover.mosaic={images: 20, crops: 2, factor: 2}",
    "recover.steps=0",
    "posttrain.sets=[distilled]",
)


def test_workers_do_not_change_mosaics_and_more_images_extend_them(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "one", *MOSAIC)
    execute(run, "ingest", "squeeze", "recover")
    others = same_teacher(run, tmp_path / "three", *MOSAIC)
    execute(others, "recover", workers=3)
    assert manifest(others, "recover") == manifest(run, "recover")

    more = tiny_run(tmp_path / "one", *MOSAIC, "ipc=3")
    ran = execute(more, "ingest", "squeeze", "recover").ran
    assert len([shard for stage, shard in ran if stage == "recover"]) == 1
