"""Identical bytes whatever the number of workers, local or on Ray (CPU, float32)."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.training.supervised import Resident
from tasks.run import Run
from tests.support.pipeline import (
    IMAGE_AND_LABEL_MANIFESTS,
    execute,
    manifest,
    same_teacher,
    tiny_run,
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run made by one worker in this process."""
    run = tiny_run(tmp_path_factory.mktemp("reference"))
    execute(run, "ingest", "squeeze", "recover", "relabel")
    return run


@pytest.mark.parametrize(
    ("workers", "local"),
    [
        pytest.param(3, True, id="three spawned processes"),
        pytest.param(1, False, id="one Ray actor", marks=pytest.mark.cluster),
        pytest.param(3, False, id="three Ray actors", marks=pytest.mark.cluster),
    ],
)
def test_every_image_and_label_shard_has_the_same_bytes(
    reference: Run, tmp_path: Path, workers: int, local: bool
) -> None:
    run = same_teacher(reference, tmp_path)
    recorder = execute(run, "recover", "relabel", workers=workers, local=local)
    assert {stage for stage, _ in recorder.ran} == {"recover", "relabel"}
    for name in IMAGE_AND_LABEL_MANIFESTS:
        assert manifest(run, name) == manifest(reference, name)


@pytest.mark.parametrize("local", [True, pytest.param(False, marks=pytest.mark.cluster)])
def test_a_teacher_has_the_same_bytes_when_its_images_are_read_ahead(
    reference: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    monkeypatch.setenv("DISTILL_RESIDENT_BYTES", "1")
    monkeypatch.setattr(Resident, "of", None)  # in this process nobody may hold them
    run = tiny_run(tmp_path)
    execute(run, "ingest", "squeeze", local=local)
    assert manifest(run, "squeeze") == manifest(reference, "squeeze")


def test_extending_ipc_runs_only_new_shards_and_keeps_the_first_bytes(
    reference: Run, tmp_path: Path
) -> None:
    settings = ("recover.ipc_range=2",)
    short = tiny_run(tmp_path, *settings)
    execute(short, "ingest", "squeeze", "recover")
    longer = tiny_run(tmp_path, *settings, "ipc=4")
    recorder = execute(longer, "ingest", "squeeze", "recover")
    made = sorted(shard for stage, shard in recorder.ran if stage == "recover")
    assert made == ["c00000-00009_i002-003", "c00000-00009_i002-003_random_real"]
    assert ("squeeze", "resnet18_small-w4") not in recorder.ran
    for name in ("recover", "recover.random_real"):
        first = manifest(longer, name).entries[:1]
        assert first == manifest(short, name).entries
