"""Runs that read their real images from packs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from distill_core.config.schema import RunConfig
from distill_core.errors import DataError, DistillError
from distill_core.storage.pieces import PieceWriter
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from flows.estimate.workload import shards_by_stage
from flows.maintenance.verify import verify_run
from flows.status.status import run_status
from tasks.gc.collect import collect
from tasks.run import Run, create_run
from tasks.stages.names import StageId
from tasks.stages.plan import manifests_of
from tasks.stages.table import stages_of
from tests.support.killed import Killed
from tests.support.pipeline import execute, manifest
from tests.support.series import Series, change_class, small

ORIGINAL = "data.pack={encoding: original, pack_bytes: 1024}"
# Stages that read real images: teachers, class statistics, starts, the baseline, students, blocks.
READERS = (
    "recover.terms={cross_entropy: 1.0, class_bn_statistics: 0.01}",
    "recover.init=real",
    "posttrain.validation_shard=3",
)


def much_later(_store: Store) -> datetime:
    """Return a time at which every file is old enough to be collected."""
    return datetime.now(UTC) + timedelta(days=30)


BLOCKS = ["train_c00000-00001", "train_c00002-00003", "test_c00000-00003"]


def registered(config: RunConfig, folder: Path) -> Run:
    """Register a run in a store of its own."""
    return create_run(config, Store(str(folder)))


@pytest.fixture
def run(root: Path, tmp_path: Path) -> Run:
    """Return a run with packs whose dataset is ingested."""
    made = registered(small(root, ORIGINAL), tmp_path / "packed")
    execute(made, "ingest")
    return made


def entries(run: Run) -> dict[str, Any]:
    """Return the entries of all manifests but that of the packs."""
    names = (name for stage in stages_of(run.config) for name in manifests_of(run, stage))
    return {str(n): manifest(run, str(n)).entries for n in names if n.kind != "pack"}


def test_a_run_with_original_packs_makes_the_same_bytes_under_the_same_keys(
    root: Path, tmp_path: Path
) -> None:
    plain = registered(small(root, *READERS), tmp_path / "plain")
    execute(plain)
    packed = registered(small(root, ORIGINAL, *READERS), tmp_path / "packed")
    execute(packed, "ingest", "pack")
    shutil.rmtree(root)  # every reader takes packs
    execute(packed, *(str(s) for s in stages_of(packed.config) if s.kind not in ("ingest", "pack")))
    assert entries(packed) == entries(plain)
    assert {"validate", "statistics", "recover.random_real"} <= entries(packed).keys()
    assert [entry.shard for entry in manifest(packed, "pack").entries] == BLOCKS
    assert shards_by_stage(packed.config, test_images=4)["pack"] is None  # the dataset is gone
    assert verify_run(packed).damage == ()
    status = next(s for s in run_status(packed).stages if s.stage == StageId("pack"))
    assert (status.total, status.done, status.complete) == (3, 3, True)


def test_the_number_of_packs_is_planned_before_the_dataset_is_read(root: Path) -> None:
    assert shards_by_stage(small(root, ORIGINAL), test_images=4)["pack"] == len(BLOCKS)
    assert "pack" not in shards_by_stage(small(root))


def test_a_changed_class_packs_its_block_alone(root: Path, series: Series) -> None:
    config = small(root, ORIGINAL)
    series(config)
    assert series.shards("pack") == set(BLOCKS)
    change_class(root, "cat")
    series(config)
    assert series.shards("pack") == {"train_c00002-00003"}


def _after_a_piece(writer: PieceWriter, data: bytes) -> None:
    writer.flush()
    raise Killed


def _before_the_commit(writer: PieceWriter, *_: object) -> None:
    raise Killed


def _after_the_commit(writer: PieceWriter, *arguments: Any) -> None:
    commit(writer, *arguments)
    raise Killed


commit = PieceWriter.commit


@pytest.mark.parametrize(
    ("method", "killed", "done"),
    [
        ("append", _after_a_piece, 0),
        ("commit", _before_the_commit, 0),
        ("commit", _after_the_commit, 1),
    ],
)
def test_a_process_that_is_killed_leaves_attempts_which_are_collected(
    method: str, killed: Callable[..., Any], done: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(PieceWriter, "discard", lambda self: None)  # a killed process does not
        patch.setattr(PieceWriter, method, killed)
        with pytest.raises(Killed):
            execute(run, "pack")
    shard_store = ShardStore(run.store, "pack")
    assert len(shard_store.done()) == done
    ran = execute(run, "pack").ran
    assert len(ran) == len(BLOCKS) - done
    execute(run, "squeeze")
    wanted = {info.path for m in map(shard_store.marker, shard_store.done()) for info in m.files}  # type: ignore[union-attr]
    assert wanted <= {file.path for file in run.store.files("pack/data")}
    collect(run.store, clock=much_later)
    assert {file.path for file in run.store.files("pack/data")} == wanted


def test_packs_of_runs_that_are_gone_are_collected(run: Run, root: Path) -> None:
    execute(run, "pack", "squeeze")
    other = create_run(small(root, "data.pack={size: 9}"), run.store, name="other")
    execute(other, "ingest", "pack", "squeeze")
    before = ShardStore(run.store, "pack").done()
    collect(run.store, clock=much_later)
    assert ShardStore(run.store, "pack").done() == before
    shutil.rmtree(Path(run.store.url, other.path()))
    collect(run.store, clock=much_later)
    kept = {entry.key for entry in manifest(run, "pack").entries}
    assert ShardStore(run.store, "pack").done() == kept < before


def test_a_deleted_pack_is_named_and_packed_again(run: Run) -> None:
    execute(run, "pack")
    shard_store = ShardStore(run.store, "pack")
    for entry in manifest(run, "pack").entries:
        marker = shard_store.marker(entry.key)
        assert marker is not None
        run.store.delete(marker.file("00000.pack").path)
    with pytest.raises(DistillError, match=r"no such pack, but a marker lists it. Delete .*_done/"):
        execute(run, "squeeze")
    for key in shard_store.done():
        run.store.delete(shard_store.marker_path(key))
    assert len(execute(run, "pack").ran) == len(BLOCKS)
    execute(run, "squeeze")


def test_a_changed_source_ends_the_stage_with_its_name(run: Run, root: Path) -> None:
    change_class(root, "cat")
    with pytest.raises(DataError, match=r"cat/1\.png: not the image that was ingested"):
        execute(run, "pack")
