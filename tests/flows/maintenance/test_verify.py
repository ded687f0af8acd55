"""`distill verify` finds every kind of damage and names the file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_core.storage.digest import sha256
from distill_core.storage.manifest import load_manifest
from distill_core.storage.records import seal_json
from distill_core.storage.shard_store import ShardStore
from flows.maintenance.verify import locate_damage, verify_run, verify_with_progress
from tasks.run import Run
from tests.support.cli import Distill
from tests.support.fabricate import finished_run, marker_path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a finished run."""
    return finished_run(tmp_path)


def file_of(run: Run, stage: str) -> str:
    """Return the path of the first file of a stage."""
    manifest = load_manifest(run.store, run.name, stage)
    assert manifest is not None
    marker = ShardStore(run.store, stage).marker(manifest.entries[0].key)
    assert marker is not None
    return marker.files[0].path


def test_a_sound_run_has_no_damage(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = verify_with_progress(run)
    assert verdict.damage == ()
    assert verdict.files == 2 + 2 * 2 + 2 + 6
    assert verdict.summary("tiny").startswith("tiny: verified 14 files of 11 shards")
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
    assert "do not match the marker" in str(damage)


def test_a_missing_file_is_found(run: Run) -> None:
    path = file_of(run, "recover")
    run.store.delete(path)
    (damage,) = verify_run(run).damage
    assert damage.path == path
    assert "no such object" in damage.problem


def test_a_missing_marker_is_found(run: Run) -> None:
    path = marker_path(run, "recover")
    run.store.delete(path)
    (damage,) = verify_run(run).damage
    assert (damage.path, "is missing" in damage.problem) == (path, True)


def test_a_marker_that_is_not_json_is_found(run: Run) -> None:
    run.store.put(marker_path(run, "recover"), b'{"key": ')
    (damage,) = verify_run(run).damage
    assert "cannot be read" in damage.problem


def test_a_file_missing_in_a_marker_is_found(run: Run) -> None:
    path = marker_path(run, "recover")
    tree = json.loads(run.store.read(path))
    tree["files"] = [info for info in tree["files"] if info["suffix"] != "parquet"]
    run.store.put(path, seal_json(tree))
    (damage,) = verify_run(run).damage
    assert "the marker has none" in damage.problem


def replace_labels(run: Run, data: bytes) -> None:
    """Put other bytes in the first label shard, marker and manifest agreeing with them."""
    path, facts = file_of(run, "relabel"), {"bytes": len(data), "sha256": sha256(data)}
    run.store.put(path, data)
    marker = json.loads(run.store.read(marker_path(run, "relabel")))
    marker["files"][0] |= facts
    run.store.put(marker_path(run, "relabel"), seal_json(marker))
    edit_manifest(run, "relabel", files=[["parquet", len(data), sha256(data)]])


def edit_manifest(run: Run, stage: str, **facts: object) -> None:
    """Change the first entry of a manifest, with the digest that it then has."""
    path = run.path(f"{stage}.manifest.json")
    tree = json.loads(run.store.read(path))
    tree["entries"][0] |= facts
    run.store.put(path, seal_json(tree))


def test_a_parquet_file_of_too_few_rows_is_found(run: Run) -> None:
    stream = io.BytesIO()
    pq.write_table(pa.table({"label": [1, 2]}), stream)
    replace_labels(run, stream.getvalue())
    damage, of_students = verify_run(run).damage
    assert damage.problem == "2 rows in the file, 6 in its marker"
    assert of_students.path == run.path("posttrain.manifest.json")  # made from other labels


def test_a_file_that_is_not_parquet_is_found(run: Run) -> None:
    replace_labels(run, b"not a table")
    damage, of_students = verify_run(run).damage
    assert "not a Parquet file" in damage.problem
    assert of_students.path == run.path("posttrain.manifest.json")  # made from other labels


@pytest.mark.parametrize("group", [0, 1, 2])
@pytest.mark.parametrize("column", ["image.bytes", "wnid", "loss_cross_entropy"])
def test_a_changed_byte_is_found_with_its_row_group(
    run: Run, distill: Distill, group: int, column: str
) -> None:
    path = file_of(run, "recover")
    data = run.store.read(path)
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(group)
    chunks = [metadata.column(n) for n in range(metadata.num_columns)]
    chunk = next(one for one in chunks if one.path_in_schema == column)
    last = chunk.data_page_offset + chunk.total_compressed_size
    if chunk.has_dictionary_page:
        last = chunk.dictionary_page_offset + chunk.total_compressed_size
    spoilt = bytearray(data)
    spoilt[last - 1] ^= 0x10
    run.store.put(path, bytes(spoilt))
    output = distill("verify", run.name, "--store", run.store.url)
    assert output.code == 1
    (line,) = (line for line in output.out.splitlines() if line.startswith("damaged: "))
    assert path in line
    assert f"row group {group} of 3 cannot be read" in line


def test_damage_outside_the_row_groups_is_located_there(run: Run) -> None:
    path = file_of(run, "recover")
    data = run.store.read(path)
    assert locate_damage(data[:-1]) == "the footer cannot be read"
    assert "every row group can be read" in locate_damage(data)


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"rows": 7}, "7 rows in the manifest, 6 in its marker"),
        ({"classes": 2}, "2 classes in the manifest, 3 in its marker"),
        ({"files": []}, "the marker has a .parquet file, the manifest has none"),
        (
            {"files": [["parquet", 5, "0" * 64]]},
            ".parquet file of 5 bytes, sha256 000000000000 in the manifest",
        ),
    ],
)
def test_a_manifest_that_was_edited_is_found(
    run: Run, distill: Distill, facts: dict[str, object], problem: str
) -> None:
    edit_manifest(run, "relabel", **facts)
    damage, *more = verify_run(run).damage
    # Keys of students contain the sha256 of their labels.
    of_students = [run.path("posttrain.manifest.json")] if facts.get("files") else []
    assert [each.path for each in more] == of_students
    assert damage.path == run.path("relabel.manifest.json")
    assert damage.problem.startswith(f"shard c00000-00002_i000-001_v0000-0001: {problem}")
    assert distill("verify", run.name, "--store", run.store.url).code == 1


def test_a_manifest_that_is_not_json_is_damage_and_the_others_are_read(run: Run) -> None:
    run.store.put(run.path("relabel.manifest.json"), b'{"version": 1, ')
    path = file_of(run, "recover")
    run.store.put(path, truncate(run.store.read(path)))
    broken, cut = verify_run(run).damage
    assert (broken.path, cut.path) == (run.path("relabel.manifest.json"), path)
    assert "not a manifest" in broken.problem


def test_a_stage_that_is_not_done_is_missing_not_damaged(run: Run) -> None:
    run.store.delete(run.path("posttrain.manifest.json"))
    verdict = verify_run(run)
    assert (verdict.damage, verdict.missing) == ((), ("posttrain",))
    assert "not complete yet: posttrain" in verdict.summary("tiny")


def test_progress_ends_at_the_total(run: Run) -> None:
    seen: list[tuple[int, int]] = []
    verdict = verify_run(run, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (verdict.bytes, verdict.bytes)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
