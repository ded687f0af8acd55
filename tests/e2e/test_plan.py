"""What `distill plan` promises, held against what a run has written."""

from __future__ import annotations

import pytest

from distill_core.storage.manifest import Manifest
from flows import planning
from tasks.runs import Run
from tests.e2e.pipeline import execute, manifest, tiny_run

TOLERANCE = 0.15


# How photographs compress is an assumption, and digits are none: the distilled set is compared.
ONE_SET = ("ipc=10", "recover.ipc_range=5", "posttrain.sets=[distilled]")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run whose images and labels are made."""
    run = tiny_run(tmp_path_factory.mktemp("planned"), *ONE_SET)
    execute(run, "ingest", "squeeze", "recover", "relabel")
    return run


def written(found: Manifest) -> int:
    """Return the bytes of all files of a manifest."""
    return sum(size for entry in found.entries for _, size, _ in entry.files)


@pytest.mark.parametrize("stage", ["recover", "relabel"])
def test_shards_are_exact_and_bytes_are_close(run: Run, stage: str) -> None:
    found, plan = manifest(run, stage), planning.plan_run(run.config)
    assert planning.shards_by_stage(plan)[stage] == len(found.entries)
    predicted = plan.image_bytes if stage == "recover" else plan.label_bytes
    assert predicted == pytest.approx(written(found), rel=TOLERANCE)
