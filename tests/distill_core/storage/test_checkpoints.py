"""Checkpoints: the furthest valid one of any execution is used, and never an incomplete one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from distill_core.storage.checkpoints import Checkpoints
from distill_core.storage.store import Store

KEY = "ab" * 16
FOLDER = f"squeeze/checkpoints/{KEY}"
T1, T2, T3, T4 = (digit * 32 for digit in "1234")


def execution(store: Store, token: str, key: str = KEY) -> Checkpoints:
    """Return the checkpoints of one execution."""
    return Checkpoints(store, "squeeze", key, token)


def test_without_a_save_there_is_no_checkpoint(store: Store) -> None:
    assert execution(store, T1).latest() is None
    execution(store, T1).clear()


def test_another_execution_resumes_from_the_furthest_step(store: Store) -> None:
    execution(store, T1).save(3, b"three")
    execution(store, T2).save(10, b"ten")
    execution(store, T3).save(9, b"nine")
    assert execution(store, T4).latest() == (10, b"ten")


def test_older_files_of_the_same_execution_are_deleted(store: Store) -> None:
    first = execution(store, T1)
    execution(store, T2).save(1, b"other")
    first.save(1, b"one")
    first.save(2, b"two")
    assert store.names(f"{FOLDER}-{T1}") == ("pointer.json", "step-000002.safetensors")
    assert store.names(f"{FOLDER}-{T2}") == ("pointer.json", "step-000001.safetensors")
    assert first.latest() == (2, b"two")


def test_an_execution_killed_before_its_pointer_keeps_the_one_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = execution(store, T1)
    checkpoints.save(1, b"one")
    honest = Store.put

    def put(self: Store, path: str, data: bytes) -> None:
        if path.endswith("pointer.json"):
            raise KeyboardInterrupt
        honest(self, path, data)

    monkeypatch.setattr(Store, "put", put)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(2, b"two")
    assert checkpoints.latest() == (1, b"one")


@pytest.mark.parametrize(
    "pointer",
    [
        b"",
        b'{"step": 7',
        b"[7]",
        b'{"step": 7}',
        json.dumps({"step": 7, "file": "gone", "sha256": "0" * 64}).encode(),
        json.dumps({"step": 7, "file": "step-000007.safetensors", "sha256": "0" * 64}).encode(),
    ],
)
def test_an_incomplete_or_mismatching_pointer_is_ignored(store: Store, pointer: bytes) -> None:
    execution(store, T1).save(3, b"three")
    execution(store, T2).save(7, b"seven")
    store.put(f"{FOLDER}-{T2}/pointer.json", pointer)
    assert execution(store, T3).latest() == (3, b"three")


def test_a_damaged_payload_is_ignored(store: Store) -> None:
    execution(store, T1).save(3, b"three")
    execution(store, T2).save(7, b"seven")
    store.put(f"{FOLDER}-{T2}/step-000007.safetensors", b"sevem")
    assert execution(store, T3).latest() == (3, b"three")


def test_clearing_deletes_every_execution_of_the_key_and_no_other(store: Store) -> None:
    other = execution(store, T1, key="cd" * 16)
    other.save(5, b"other")
    for token in (T1, T2):
        execution(store, token).save(1, b"x")
    execution(store, T3).clear()
    assert execution(store, T1).latest() is None
    assert store.names(f"{FOLDER}-{T1}") == store.names(f"{FOLDER}-{T2}") == ()
    assert other.latest() == (5, b"other")


def test_files_of_other_names_stay_when_checkpoints_are_replaced_or_cleared(store: Store) -> None:
    foreign = (f"{FOLDER}-{T1}/notes.txt", f"{FOLDER}-mine/step-000001.safetensors")
    for path in foreign:
        store.put(path, b"x")
    execution(store, T1).save(1, b"one")
    execution(store, T1).save(2, b"two")
    execution(store, T2).clear()
    assert store.names(f"{FOLDER}-{T1}") == ("notes.txt",)
    assert all(store.exists(path) for path in foreign)


def test_clearing_follows_no_link_out_of_the_store(tmp_path: Path) -> None:
    store, elsewhere = Store(str(tmp_path / "store")), tmp_path / "elsewhere"
    execution(store, T1).save(1, b"one")
    Path(store.url, f"{FOLDER}-{T1}").rename(elsewhere)
    Path(store.url, f"{FOLDER}-{T1}").symlink_to(elsewhere)
    execution(store, T2).clear()
    assert sorted(os.listdir(elsewhere)) == ["pointer.json", "step-000001.safetensors"]
