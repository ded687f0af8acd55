"""Random records: those that a store holds, with values, types and bytes that are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_core.errors import DataError, ShardError
from distill_core.models.spec import TeacherSpec
from distill_core.storage.manifest import Manifest
from distill_core.storage.markers import FileInfo, Marker
from tests.support.fabricate import finished_run
from tests.support.fuzzing import (
    check_output,
    examples,
    invoke,
    mutated_bytes,
    mutated_trees,
    trees,
)

MARKER = Marker(
    key="0" * 32,
    stage="recover",
    shard="c00000-00009_i000-009",
    token="1" * 32,
    files=(FileInfo("parquet", f"recover/data/{'0' * 32}-{'1' * 32}.parquet", 10, "2" * 64),),
    rows=10,
    classes=10,
    seconds=1.5,
    device="cpu",
    host="here",
    finished="2030-01-02T03:04:05+00:00",
    summary={"loss": 1.0},
)
SPEC = {
    "model": {"name": "convnet3", "width": 8},
    "num_classes": 4,
    "class_hash": "0" * 16,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.25, 0.25, 0.25],
    "side": 16,
    "features": 8,
    "accuracy": 50.0,
    "origin": "test",
}
RECORDS: dict[str, tuple[Callable[[bytes], Any], bytes, type[DataError]]] = {
    "marker": (Marker.from_json, MARKER.to_json(), ShardError),
    "manifest": (Manifest.from_json, Manifest.of("recover", [MARKER]).to_json(), DataError),
    "teacher": (TeacherSpec.from_json, json.dumps(SPEC).encode(), DataError),
}
NESTED = (b"[" * 100_000, b'{"a":' * 100_000, b'{"files":' + b"[" * 100_000)


def parse(name: str, data: bytes) -> None:
    """Parse a record; only the error of its kind may be raised."""
    read, _, error = RECORDS[name]
    try:
        read(data)
    except error as refusal:
        text = str(refusal)
    else:
        return
    assert "\n" not in text
    assert len(text) < 2000


@pytest.mark.parametrize("name", RECORDS)
@examples(60)
@given(data=st.data())
def test_a_mutated_record_is_read_or_refused_in_one_line(name: str, data: st.DataObject) -> None:
    stored = RECORDS[name][1]
    tree = mutated_trees(json.loads(stored)) | trees
    parse(name, data.draw(mutated_bytes(stored) | st.binary(max_size=50) | tree.map(_json)))


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("content", NESTED, ids=["lists", "mappings", "files"])
def test_a_deeply_nested_record_is_refused_in_one_line(name: str, content: bytes) -> None:
    parse(name, content)


@examples(5)
@given(data=st.data())
def test_commands_report_a_damaged_record_in_one_line(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = finished_run(tmp_path_factory.mktemp("store"))
    folder = Path(run.store.url)
    records = sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".yaml"))
    path = data.draw(st.sampled_from(records), label="record")
    content = path.read_bytes()
    damaged = mutated_bytes(content) | st.sampled_from([b"", b"null", b"[]", b"{}", *NESTED])
    path.write_bytes(data.draw(damaged))
    for command in (("status",), ("status", "tiny"), ("resume", "tiny", "--dry-run")):
        check_output(invoke([*command, "--store", run.store.url]))
    check_output(invoke(["verify", "tiny", "--store", run.store.url]))
    check_output(invoke(["gc", "--dry-run", "--store", run.store.url]))


def _json(tree: Any) -> bytes:
    return json.dumps(tree).encode("utf-8", "surrogatepass")
