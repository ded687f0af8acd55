"""A run over a compressed archive has the shards of a run over its folders."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from distill_core.config.schema import RunConfig
from distill_core.storage.store import Store
from flows.maintenance.verify import verify_run
from tasks.run import Run, create_run
from tests.support.pipeline import execute, manifest
from tests.support.series import dataset, small


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Return a folder with a compressed archive of each split."""
    root = dataset(tmp_path / "data")
    (tmp_path / "packed").mkdir()
    for split in ("train", "test"):
        with tarfile.open(tmp_path / "packed" / f"{split}.tar.gz", "w:gz") as archive:
            archive.add(root / split, split)
    return tmp_path / "packed"


def registered(config: RunConfig, folder: Path) -> Run:
    """Register a run in a store of its own."""
    return create_run(config, Store(str(folder)), name="run")


def test_every_stage_reads_images_of_an_archive_that_was_deleted_after_ingestion(
    packed: Path, tmp_path: Path
) -> None:
    plain = registered(small(tmp_path / "data", "recover.init=real"), tmp_path / "a")
    other = ("data.format=tars", f"data.path={packed}", "recover.init=real")
    run = registered(small(tmp_path / "data", *other), tmp_path / "b")
    execute(plain)
    execute(run, "ingest")
    for path in packed.iterdir():
        path.unlink()
    execute(run)
    for stage in ("squeeze", "recover", "recover.random_real", "relabel", "posttrain"):
        assert manifest(run, stage).entries == manifest(plain, stage).entries, stage


def test_a_changed_or_lost_piece_is_damage_that_verify_names(packed: Path, tmp_path: Path) -> None:
    other = ("data.format=tars", f"data.path={packed}")
    run = registered(small(tmp_path / "data", *other), tmp_path / "store")
    execute(run, "ingest")
    assert verify_run(run).damage == ()
    piece, second = sorted(
        f"ingest/data/{name}" for name in run.store.names("ingest/data") if name.endswith(".pack")
    )
    data = bytearray(run.store.read(piece))
    data[600] ^= 1
    run.store.put(piece, bytes(data))
    run.store.delete(f"ingest/_done/{Path(second).name[:32]}.json")
    damage = verify_run(run).damage
    assert sorted(each.path for each in damage) == sorted(
        (piece, f"ingest/_done/{Path(second).name[:32]}.json")
    )
