"""Commits: one winner, no loss, no partial shard, and every byte verified."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distill_core.errors import ShardError, StorageError
from distill_core.storage.markers import Marker
from distill_core.storage.shard_store import ShardStore, new_token
from distill_core.storage.store import Store
from tests.support.commits import FILES, KEY, commit, data_files
from tests.support.places import THREADS


def answers(monkeypatch: pytest.MonkeyPatch, *creates: Callable[[Store, str, bytes], bool]) -> None:
    """Replace `Store.create`, call by call; the last replacement stays."""
    queue: Iterator[Callable[[Store, str, bytes], bool]] = iter(creates)
    current = list(creates[-1:])

    def create(self: Store, path: str, data: bytes) -> bool:
        current[0] = next(queue, current[0])
        return current[0](self, path, data)

    monkeypatch.setattr(Store, "create", create)


honest = Store.create


def reply_lost(store: Store, path: str, data: bytes) -> bool:
    """Carry the request out and lose the answer."""
    honest(store, path, data)
    raise StorageError(f"{path}: timed out")


def retried_after_a_lost_reply(store: Store, path: str, data: bytes) -> bool:
    """Carry the request out; the client's own retry then finds the object there."""
    honest(store, path, data)
    return honest(store, path, data)


def refused(_store: Store, path: str, _data: bytes) -> bool:
    """Do nothing and fail."""
    raise StorageError(f"{path}: timed out")


def test_a_commit_is_done_and_reads_back(shard_store: ShardStore) -> None:
    assert shard_store.done() == frozenset()
    assert shard_store.marker(KEY) is None
    marker = commit(shard_store)
    assert shard_store.done() == {KEY}
    assert shard_store.marker(KEY) == marker
    assert {suffix: shard_store.load(marker, suffix) for suffix in FILES} == FILES
    assert marker.seconds == 1.235
    assert marker.finished == "2026-01-02T03:04:05+00:00"


def test_a_marker_is_plain_json(shard_store: ShardStore) -> None:
    marker = commit(shard_store)
    tree = json.loads(shard_store.store.read(f"recover/_done/{KEY}.json"))
    assert tree["files"][0]["path"] == f"recover/data/{KEY}-{marker.token}.parquet"
    assert tree["summary"] == {"cross_entropy": 0.5}
    assert Marker.from_json(marker.to_json()) == marker


def test_tokens_are_128_random_bits() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert {len(token) for token in tokens} == {32}


def test_a_loser_discards_its_data_and_returns_the_winners_marker(shard_store: ShardStore) -> None:
    winner = commit(shard_store, token="1" * 32)
    assert commit(shard_store, {"parquet": b"other"}, token="2" * 32) == winner
    assert data_files(shard_store) == tuple(sorted(Path(info.path).name for info in winner.files))
    assert shard_store.load(winner, "parquet") == b"rows"


def test_of_sixteen_committers_one_wins_and_only_its_data_stays(shard_store: ShardStore) -> None:
    barrier = threading.Barrier(THREADS)

    def attempt(number: int) -> Marker:
        barrier.wait()
        return commit(shard_store, {"parquet": bytes([number])}, token=f"{number:032x}")

    with ThreadPoolExecutor(THREADS) as threads:
        returned = list(threads.map(attempt, range(THREADS)))
    (marker,) = {m.token: m for m in returned}.values()
    assert all(m == marker for m in returned)
    assert data_files(shard_store) == (f"{KEY}-{marker.token}.parquet",)
    assert shard_store.load(marker, "parquet") == bytes([int(marker.token, 16)])


@pytest.mark.parametrize("kind", [reply_lost, retried_after_a_lost_reply])
def test_a_lost_reply_is_resolved_through_the_token(
    shard_store: ShardStore,
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[[Store, str, bytes], bool],
) -> None:
    answers(monkeypatch, kind)
    marker = commit(shard_store, token="1" * 32)
    assert marker.token == "1" * 32
    assert shard_store.load(marker, "parquet") == b"rows"


def test_a_lost_reply_after_a_lost_race_is_resolved_as_a_loss(
    shard_store: ShardStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    winner = commit(shard_store, token="1" * 32)
    answers(monkeypatch, reply_lost)
    assert commit(shard_store, token="2" * 32) == winner
    assert len(data_files(shard_store)) == len(FILES)


def test_a_create_that_fails_briefly_is_retried(
    shard_store: ShardStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, refused, honest)
    assert commit(shard_store, token="1" * 32).token == "1" * 32


def test_a_create_that_keeps_failing_leaves_the_data_and_no_marker(
    shard_store: ShardStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, refused)
    with pytest.raises(StorageError, match="timed out"):
        commit(shard_store)
    # A request still under way may yet succeed: its marker must find its data.
    assert len(data_files(shard_store)) == len(FILES)
    assert shard_store.done() == frozenset()


def test_a_store_that_contradicts_itself_is_refused(
    shard_store: ShardStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, lambda _store, _path, _data: False)
    with pytest.raises(StorageError, match=f"_done/{KEY}.json: the store reports that it exists"):
        commit(shard_store)


@pytest.mark.parametrize("error", [KeyboardInterrupt, StorageError, MemoryError])
def test_a_writer_killed_between_its_files_leaves_nothing(
    shard_store: ShardStore, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    honest_put = Store.put

    def put(self: Store, path: str, data: bytes) -> None:
        if path.endswith(".trace.json"):
            raise error
        honest_put(self, path, data)

    monkeypatch.setattr(Store, "put", put)
    with pytest.raises(error):
        commit(shard_store)
    assert data_files(shard_store) == ()
    assert shard_store.done() == frozenset()
    monkeypatch.undo()
    assert commit(shard_store).key == KEY


def test_a_flipped_byte_is_found_and_the_file_named(shard_store: ShardStore) -> None:
    marker = commit(shard_store)
    path = marker.file("parquet").path
    shard_store.store.put(path, b"rowz")
    with pytest.raises(ShardError) as caught:
        shard_store.load(marker, "parquet")
    message = str(caught.value)
    assert message.startswith(shard_store.store.uri(path))
    assert "4 bytes" in message
    assert marker.file("parquet").sha256[:12] in message
    assert f"Delete {shard_store.store.uri(shard_store.marker_path(KEY))}" in message


def test_a_missing_file_is_named(shard_store: ShardStore) -> None:
    marker = commit(shard_store)
    shard_store.store.delete(marker.file("parquet").path)
    with pytest.raises(ShardError, match=f"{KEY}-{marker.token}.parquet: no such object"):
        shard_store.load(marker, "parquet")


def test_a_file_the_marker_does_not_list_is_refused(shard_store: ShardStore) -> None:
    with pytest.raises(ShardError, match=r"no file 'safetensors'.*parquet, trace\.json"):
        shard_store.load(commit(shard_store), "safetensors")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"files": []}', b"\xff\xfe"])
def test_an_incomplete_marker_is_named(shard_store: ShardStore, data: bytes) -> None:
    shard_store.store.put(shard_store.marker_path(KEY), data)
    with pytest.raises(ShardError, match=f"{KEY}.json: {len(data)} bytes are not a marker"):
        shard_store.marker(KEY)


def test_done_ignores_files_that_are_not_markers(shard_store: ShardStore) -> None:
    commit(shard_store)
    shard_store.store.put("recover/_done/note.txt", b"x")
    assert shard_store.done() == {KEY}


def test_done_takes_one_list_call(shard_store: ShardStore, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(shard_store)
    calls: list[str] = []

    def names(_self: Store, folder: str) -> tuple[str, ...]:
        calls.append(folder)
        return (f"{KEY}.json",)

    monkeypatch.setattr(Store, "names", names)
    assert shard_store.done() == {KEY}
    assert calls == ["recover/_done"]
