"""Checkpoints: the furthest valid one of any execution is used, and never an incomplete one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from distill_core.errors import StorageError
from distill_core.storage.checkpoints import Checkpoints
from distill_core.storage.digest import sha256
from distill_core.storage.store import Store

KEY = "ab" * 16
FOLDER = f"squeeze/checkpoints/{KEY}"
T1, T2, T3, T4 = (digit * 32 for digit in "1234")


def latest(checkpoints: Checkpoints) -> tuple[int, bytes] | None:
    """Return the furthest usable checkpoint."""
    return next(checkpoints.stored(), None)


def execution(store: Store, token: str, key: str = KEY) -> Checkpoints:
    """Return the checkpoints of one execution."""
    return Checkpoints(store, "squeeze", key, token)


def test_without_a_save_there_is_no_checkpoint(store: Store) -> None:
    assert latest(execution(store, T1)) is None
    execution(store, T1).clear()


def test_another_execution_resumes_from_the_furthest_step(store: Store) -> None:
    execution(store, T1).save(3, b"three")
    execution(store, T2).save(10, b"ten")
    execution(store, T3).save(9, b"nine")
    assert latest(execution(store, T4)) == (10, b"ten")


def test_older_files_of_the_same_execution_are_deleted(store: Store) -> None:
    first = execution(store, T1)
    execution(store, T2).save(1, b"other")
    for step, payload in ((1, b"one"), (2, b"two"), (3, b"three")):
        first.save(step, payload)
    steps = ("step-000002.safetensors", "step-000003.safetensors")
    assert store.names(f"{FOLDER}-{T1}") == ("pointer.json", *steps)
    assert store.names(f"{FOLDER}-{T2}") == ("pointer.json", "step-000001.safetensors")
    assert list(first.stored()) == [(3, b"three"), (2, b"two"), (1, b"other")]


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
    assert latest(checkpoints) == (1, b"one")


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
    assert latest(execution(store, T3)) == (3, b"three")


@pytest.mark.parametrize("damage", [b"", b"seve", b"sevem"])
def test_a_damaged_payload_is_reported_and_the_one_before_is_used(
    store: Store, damage: bytes
) -> None:
    execution(store, T1).save(3, b"three")
    for step, payload in ((6, b"six"), (7, b"seven")):
        execution(store, T2).save(step, payload)
    store.put(f"{FOLDER}-{T2}/step-000007.safetensors", damage)
    notices: list[str] = []
    found = list(Checkpoints(store, "squeeze", KEY, T3, notices.append).stored())
    assert found == [(6, b"six"), (3, b"three")]
    (notice,) = notices
    assert store.uri(f"{FOLDER}-{T2}/step-000007.safetensors") in notice
    assert "damaged" in notice


def test_the_pointer_of_an_older_version_names_one_checkpoint(store: Store) -> None:
    old = {"step": 7, "file": "step-000007.safetensors", "sha256": sha256(b"seven")}
    store.put(f"{FOLDER}-{T1}/step-000007.safetensors", b"seven")
    store.put(f"{FOLDER}-{T1}/pointer.json", json.dumps(old).encode())
    assert latest(execution(store, T2)) == (7, b"seven")
    execution(store, T1).save(8, b"eight")
    assert list(execution(store, T2).stored()) == [(8, b"eight"), (7, b"seven")]


def test_inside_an_epoch_the_furthest_batch_is_read_and_the_end_of_the_epoch_is_further(
    store: Store,
) -> None:
    first, second = execution(store, T1), execution(store, T2)
    for batches in (5, 10, 15):
        first.save(2, b"%d" % batches, batches=batches)
    second.save(2, b"two")
    names = ("step-000002-000010.safetensors", "step-000002-000015.safetensors")
    assert store.names(f"{FOLDER}-{T1}") == ("pointer.json", *names)
    assert list(second.stored()) == [(2, b"15"), (2, b"10"), (2, b"two")]
    first.save(3, b"three")
    assert list(second.stored()) == [(3, b"three"), (2, b"15"), (2, b"two")]
    first.clear()
    assert store.names(f"{FOLDER}-{T1}") == ()


def test_the_pointer_of_whole_epochs_is_that_of_an_older_version(store: Store) -> None:
    first = execution(store, T1)
    first.save(2, b"two", batches=7)
    assert json.loads(store.read(f"{FOLDER}-{T1}/pointer.json"))["batches"] == 7
    for step in (3, 4):
        first.save(step, b"%d" % step)
    newest = json.loads(store.read(f"{FOLDER}-{T1}/pointer.json"))
    assert newest.keys() == {"step", "file", "sha256", "before"}
    assert newest["before"].keys() == {"step", "file", "sha256"}


class Unreadable:
    """Refuses to read some objects, as a disk with bad blocks or a store that is away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, part: str, *, listed: bool) -> None:
        read, names = Store.read, Store.names

        def refuse(store: Store, path: str) -> bytes:
            if part in path:
                raise StorageError(f"{path}: cannot be read (input/output error).")
            return read(store, path)

        def refuse_list(store: Store, folder: str) -> tuple[str, ...]:
            if not listed:
                raise StorageError(f"{folder}: cannot be listed (timed out).")
            return names(store, folder)

        monkeypatch.setattr(Store, "read", refuse)
        monkeypatch.setattr(Store, "names", refuse_list)


@pytest.mark.parametrize(("unreadable", "older"), [("step-000007", T1), (f"{T1}/pointer.json", T2)])
def test_an_object_that_cannot_be_read_is_reported_and_an_older_checkpoint_is_used(
    store: Store, monkeypatch: pytest.MonkeyPatch, unreadable: str, older: str
) -> None:
    execution(store, older).save(6, b"six")
    execution(store, T1).save(7, b"seven")
    Unreadable(monkeypatch, unreadable, listed=True)
    notices: list[str] = []
    assert latest(Checkpoints(store, "squeeze", KEY, T2, notices.append)) == (6, b"six")
    assert ["input/output error" in notice for notice in notices] == [True]


def test_a_store_that_is_away_is_not_taken_for_a_damaged_checkpoint(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step, payload in ((6, b"six"), (7, b"seven")):
        execution(store, T1).save(step, payload)
    Unreadable(monkeypatch, ".safetensors", listed=False)
    with pytest.raises(StorageError, match="timed out") as caught:
        latest(execution(store, T2))
    assert caught.value.retryable


def test_an_execution_deletes_its_own_checkpoints_alone(store: Store) -> None:
    for token in (T1, T2):
        execution(store, token).save(1, b"x")
    execution(store, T1).clear_own()
    assert store.names(f"{FOLDER}-{T1}") == ()
    assert store.names(f"{FOLDER}-{T2}") == ("pointer.json", "step-000001.safetensors")


def test_clearing_deletes_every_execution_of_the_key_and_no_other(store: Store) -> None:
    other = execution(store, T1, key="cd" * 16)
    other.save(5, b"other")
    for token in (T1, T2):
        execution(store, token).save(1, b"x")
    execution(store, T3).clear()
    assert latest(execution(store, T1)) is None
    assert store.names(f"{FOLDER}-{T1}") == store.names(f"{FOLDER}-{T2}") == ()
    assert latest(other) == (5, b"other")


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
