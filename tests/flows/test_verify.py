"""Verify finds every kind of damage, and names the file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_core.storage.digest import sha256
from distill_core.storage.manifest import Manifest, load_manifest, save_manifest
from distill_core.storage.markers import StageShelf
from flows.verify import verify_run, verify_with_progress
from tasks.runs import Run
from tests.flows.fabricate import finished_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a finished run."""
    return finished_run(tmp_path)


def file_of(run: Run, stage: str) -> str:
    """Return the path of the first file of a stage."""
    manifest = load_manifest(run.store, run.name, stage)
    assert manifest is not None
    marker = StageShelf(run.store, stage).marker(manifest.entries[0].key)
    assert marker is not None
    return marker.files[0].path


def test_a_sound_run_has_no_damage(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = verify_with_progress(run)
    assert verdict.damage == ()
    assert verdict.files == 1 + 2 * 2 + 2 + 6
    assert verdict.summary("tiny").startswith("tiny: verified 13 files of 11 shards")
    assert "verify" in capsys.readouterr().err


def truncate(data: bytes) -> bytes:
    """Return the data without its last byte."""
    return data[:-1]


def flip(data: bytes) -> bytes:
    """Return the data with one bit of its middle changed."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("stage", ["squeeze", "recover", "relabel", "posttrain"])
@pytest.mark.parametrize("harm", [truncate, flip])
def test_changed_bytes_are_found(run: Run, stage: str, harm: Callable[[bytes], bytes]) -> None:
    path = file_of(run, stage)
    run.store.put(path, harm(run.store.read(path)))
    (damage,) = verify_run(run).damage
    assert damage.path == path
    assert "do not match the manifest" in str(damage)


def test_a_missing_file_is_found(run: Run) -> None:
    path = file_of(run, "recover")
    run.store.delete(path)
    (damage,) = verify_run(run).damage
    assert damage.path == path
    assert "no such object" in damage.problem


def test_a_missing_marker_is_found(run: Run) -> None:
    run.store.delete("recover/_done/0.json")
    (damage,) = verify_run(run).damage
    assert (damage.path, "gone" in damage.problem) == ("recover/_done/0.json", True)


def test_a_marker_that_is_no_json_is_found(run: Run) -> None:
    run.store.put("recover/_done/0.json", b'{"key": ')
    (damage,) = verify_run(run).damage
    assert "cannot be read" in damage.problem


def test_a_marker_that_lost_a_file_is_found(run: Run) -> None:
    tree = json.loads(run.store.read("recover/_done/0.json"))
    tree["files"] = [info for info in tree["files"] if info["suffix"] != "parquet"]
    run.store.put("recover/_done/0.json", json.dumps(tree).encode())
    (damage,) = verify_run(run).damage
    assert "names no .parquet file" in damage.problem


def replace_images(run: Run, data: bytes) -> None:
    """Put other bytes in the first label shard, marker and manifest agreeing with them."""
    path = file_of(run, "relabel")
    run.store.put(path, data)
    manifest = load_manifest(run.store, run.name, "relabel")
    assert manifest is not None
    tree = json.loads(manifest.to_json())
    tree["entries"][0]["files"] = [["parquet", len(data), sha256(data)]]
    save_manifest(run.store, run.name, Manifest.from_json(json.dumps(tree).encode()))


def test_a_parquet_file_of_too_few_rows_is_found(run: Run) -> None:
    stream = io.BytesIO()
    pq.write_table(pa.table({"label": [1, 2]}), stream)
    replace_images(run, stream.getvalue())
    (damage,) = verify_run(run).damage
    assert damage.problem == "2 rows, the manifest says 6"


def test_a_file_that_is_no_parquet_is_found(run: Run) -> None:
    replace_images(run, b"not a table")
    (damage,) = verify_run(run).damage
    assert "not Parquet" in damage.problem


def test_a_stage_that_is_not_done_is_missing_not_damaged(run: Run) -> None:
    run.store.delete(run.path("posttrain.manifest.json"))
    verdict = verify_run(run)
    assert (verdict.damage, verdict.missing) == ((), ("posttrain",))
    assert "not there yet: posttrain" in verdict.summary("tiny")


def test_progress_ends_at_the_total(run: Run) -> None:
    seen: list[tuple[int, int]] = []
    verdict = verify_run(run, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (verdict.bytes, verdict.bytes)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
