"""Checkpoints: the furthest valid one of any execution is used, and never an incomplete one."""

from __future__ import annotations

import json

import pytest

from distill_core.storage.checkpoints import Checkpoints
from distill_core.storage.store import Store

KEY = "ab" * 16
FOLDER = f"squeeze/checkpoints/{KEY}"


def execution(store: Store, token: str, key: str = KEY) -> Checkpoints:
    """Return the checkpoints of one execution."""
    return Checkpoints(store, "squeeze", key, token)


def test_without_a_save_there_is_no_checkpoint(store: Store) -> None:
    assert execution(store, "t1").latest() is None
    execution(store, "t1").clear()


def test_another_execution_resumes_from_the_furthest_step(store: Store) -> None:
    execution(store, "t1").save(3, b"three")
    execution(store, "t2").save(10, b"ten")
    execution(store, "t3").save(9, b"nine")
    assert execution(store, "t4").latest() == (10, b"ten")


def test_older_files_of_the_same_execution_are_deleted(store: Store) -> None:
    first = execution(store, "t1")
    execution(store, "t2").save(1, b"other")
    first.save(1, b"one")
    first.save(2, b"two")
    assert store.names(f"{FOLDER}-t1") == ("pointer.json", "step-000002.safetensors")
    assert store.names(f"{FOLDER}-t2") == ("pointer.json", "step-000001.safetensors")
    assert first.latest() == (2, b"two")


def test_an_execution_killed_before_its_pointer_keeps_the_one_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = execution(store, "t1")
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
    execution(store, "t1").save(3, b"three")
    execution(store, "t2").save(7, b"seven")
    store.put(f"{FOLDER}-t2/pointer.json", pointer)
    assert execution(store, "t3").latest() == (3, b"three")


def test_a_damaged_payload_is_ignored(store: Store) -> None:
    execution(store, "t1").save(3, b"three")
    execution(store, "t2").save(7, b"seven")
    store.put(f"{FOLDER}-t2/step-000007.safetensors", b"sevem")
    assert execution(store, "t3").latest() == (3, b"three")


def test_clearing_deletes_every_execution_of_the_key_and_no_other(store: Store) -> None:
    other = execution(store, "t1", key="cd" * 16)
    other.save(5, b"other")
    for token in ("t1", "t2"):
        execution(store, token).save(1, b"x")
    execution(store, "t3").clear()
    assert execution(store, "t1").latest() is None
    assert store.names(f"{FOLDER}-t1") == store.names(f"{FOLDER}-t2") == ()
    assert other.latest() == (5, b"other")
