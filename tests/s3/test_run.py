"""Real stages with every object in a bucket, and a dataset in a bucket."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest

from distill_core.config.load import load_run
from distill_core.storage.store import Store
from flows.maintenance.verify import verify_run
from tasks.run import create_run, open_run
from tasks.stages.table import STAGES
from tests.support.cli import Distill
from tests.support.datasets import image_folder
from tests.support.pipeline import TINY, execute, manifest

IN_A_FOLDER = (
    "data={name: pets, format: imagefolder, num_classes: 2, side: 16, "
    "mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}",
)


@pytest.mark.slow
def test_a_run_in_a_bucket_verifies_and_a_second_pass_runs_nothing(
    s3_store: Store, distill: Distill
) -> None:
    where = ("--store", s3_store.url)
    output = distill("run", "digits-demo", *TINY, "--name", "tiny", "--local", *where)
    assert output.code == 0, output.err
    run = open_run(s3_store, "tiny")
    assert run.config == load_run("digits-demo", TINY)
    verdict = verify_run(run)
    assert (verdict.damage, verdict.missing) == ((), ())
    assert verdict.files > len(STAGES)
    assert execute(run).ran == []


def uploaded(folder: Path, bucket: str) -> str:
    """Copy a folder into a prefix of a bucket; return its URL."""
    place = Store(f"{bucket}/{uuid4().hex}")
    for path in folder.rglob("*.png"):
        place.put(path.relative_to(folder).as_posix(), path.read_bytes())
    return place.url


def test_images_of_a_bucket_are_read_as_those_of_a_folder(
    s3_bucket: str, s3_store: Store, tmp_path: Path
) -> None:
    folder = image_folder(tmp_path / "images")
    made = {}
    for path, store in (
        (uploaded(folder, s3_bucket), s3_store),
        (str(folder), Store(str(tmp_path / "store"))),
    ):
        config = load_run("digits-demo", (*TINY, *IN_A_FOLDER, f"data.path={path}"))
        run = create_run(config, store)
        execute(run, "ingest", "squeeze")
        made[path] = json.loads(run.store.read(run.path("ingest.json"))), manifest(run, "squeeze")
    (remote, its_teacher), (local, teacher) = made.values()
    assert remote["dataset"] == local["dataset"]
    assert remote["test_images"] == local["test_images"] == 2
    assert its_teacher.entries[0].files == teacher.entries[0].files
