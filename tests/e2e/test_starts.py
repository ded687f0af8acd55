"""Starts are selected by shard during recover, with the same bytes for any number of workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pipeline import execute, manifest, same_teacher, tiny_run

KEEP = ("recover.steps=0", "posttrain.sets=[distilled]")
MOSAIC = ("recover.init=mosaic", "recover.mosaic={images: 20, crops: 2, factor: 2}")
HERDING = ("recover.init=herding",)


@pytest.mark.parametrize("init", [MOSAIC, pytest.param(HERDING, marks=pytest.mark.slow)])
def test_the_number_of_workers_does_not_change_starts_and_more_images_extend_them(
    init: tuple[str, ...], tmp_path: Path
) -> None:
    settings = (*init, *KEEP)
    run = tiny_run(tmp_path / "one", *settings)
    execute(run, "ingest", "squeeze", "recover")
    others = same_teacher(run, tmp_path / "three", *settings)
    execute(others, "recover", workers=3)
    assert manifest(others, "recover") == manifest(run, "recover")

    more = tiny_run(tmp_path / "one", *settings, "ipc=3")
    ran = execute(more, "ingest", "squeeze", "recover").ran
    assert len([shard for stage, shard in ran if stage == "recover"]) == 1
