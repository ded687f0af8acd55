"""The prediction of `distill plan`, compared with what a run wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.config.load import load_run
from distill_core.storage.manifest import Manifest
from distill_core.storage.store import Store
from flows.estimate import workload
from tasks.run import Run, create_run
from tests.support.cifar10 import Subset
from tests.support.pipeline import execute, manifest, tiny_run

TOLERANCE = 0.15


# How photographs compress is an assumption, and digits are none: the distilled set is compared.
ONE_SET = ("ipc=10", "recover.ipc_range=5", "posttrain.sets=[distilled]")
LITTLE_WORK = (
    "recover.steps=1",
    "squeeze.training.epochs=1",
    "relabel.views=20",
    "relabel.views_per_shard=20",
)
SETS = ("", ".random_real")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run whose images and labels are made."""
    return made(tiny_run(tmp_path_factory.mktemp("planned"), *ONE_SET))


@pytest.fixture(scope="module")
def cifar10_run(cifar10_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run over a few real images of CIFAR-10; images and labels are made, both sets."""
    folder = tmp_path_factory.mktemp("cifar10")
    data = Subset(cifar10_path, folder / "data").folder
    config = load_run("cda-cifar10-cpu", (*LITTLE_WORK, f"data.path={data}"))
    return made(create_run(config, Store(str(folder / "store"))))


def made(run: Run) -> Run:
    """Make the images and labels of a run; return it."""
    execute(run, "ingest", "squeeze", "recover", "relabel")
    return run


def written(*manifests: Manifest) -> int:
    """Return the bytes of all files of some manifests."""
    return sum(size for found in manifests for entry in found.entries for _, size, _ in entry.files)


def compare(run: Run, stage: str, *names: str) -> None:
    """Hold what is planned for a stage against its manifests."""
    plan, found = workload.plan_run(run.config), [manifest(run, name) for name in names]
    assert workload.shards_by_stage(run.config)[stage] == sum(len(each.entries) for each in found)
    predicted = plan.image_bytes if stage == "recover" else plan.label_bytes
    assert predicted == pytest.approx(written(*found), rel=TOLERANCE)


@pytest.mark.parametrize("stage", ["recover", "relabel"])
def test_shards_are_exact_and_bytes_are_close(run: Run, stage: str) -> None:
    compare(run, stage, stage)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["recover", "relabel"])
def test_shards_are_exact_and_bytes_are_close_on_photographs(cifar10_run: Run, stage: str) -> None:
    compare(cifar10_run, stage, *(f"{stage}{which}" for which in SETS))
