"""The contract of a store, run for every kind of place (see tests/support/places.py)."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from distill_core.errors import ConfigError, DataError, StorageError
from distill_core.storage import backends, filesystems, object_backend
from distill_core.storage import store as store_module
from distill_core.storage.store import Store, probe
from tests.support.places import THREADS, local_store, memory_store


class BrokenBackend:
    """Raises the same error of another library in every call."""

    def __init__(self, error: Exception) -> None:
        """Keep the error."""
        self.error = error

    def __getattr__(self, _name: str) -> Callable[..., object]:
        """Answer every method."""

        def refuse(*_arguments: object, **_options: object) -> object:
            raise self.error

        return refuse


def test_what_is_put_can_be_read_and_replaced(store: Store) -> None:
    store.put("a/b/c.bin", b"first")
    store.put("a/b/c.bin", b"second")
    assert store.read("a/b/c.bin") == b"second"
    assert store.exists("a/b/c.bin")


@pytest.mark.parametrize("data", [b"", b"\x00\xff" * 100_000])
def test_empty_and_large_objects_keep_their_bytes(store: Store, data: bytes) -> None:
    store.put("x", data)
    assert store.create("y", data)
    assert store.read("x") == store.read("y") == data


def test_a_missing_object_is_a_data_error_that_names_it(store: Store) -> None:
    assert not store.exists("no/such")
    with pytest.raises(DataError, match="no/such: no such object") as caught:
        store.read("no/such")
    assert store.url in str(caught.value)


def test_a_folder_is_not_an_object(store: Store) -> None:
    store.put("a/b", b"x")
    assert not store.exists("a")
    with pytest.raises(DataError):
        store.read("a")


def test_names_lists_the_files_directly_in_a_folder(store: Store) -> None:
    for path in ("f/b", "f/a", "f/deeper/c", "g/d", "fa"):
        store.put(path, b"x")
    assert store.names("f") == ("a", "b")
    assert store.folders("f") == ("deeper",)
    assert store.names("missing") == store.folders("missing") == ()
    assert store.names("f/a") == ()


def test_names_include_objects_written_since_the_last_listing(store: Store) -> None:
    store.put("f/a", b"x")
    assert store.names("f") == ("a",)
    Store(store.url).put("f/b", b"x")
    assert store.names("f") == ("a", "b")
    store.delete("f/a")
    assert store.names("f") == ("b",)


def test_files_lists_everything_below_a_folder_with_size_and_age(store: Store) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    for path in ("f/b", "f/deeper/still/c", "f/a", "fa", "g"):
        store.put(path, path.encode())
    found = store.files("f")
    assert [file.path for file in found] == ["f/a", "f/b", "f/deeper/still/c"]
    assert [file.bytes for file in found] == [3, 3, 16]
    assert all(before < file.modified < datetime.now(UTC) + timedelta(seconds=5) for file in found)
    assert [file.path for file in store.files("")] == [*(f.path for f in found), "fa", "g"]
    assert store.files("missing") == store.files("f/a") == ()


def test_files_follow_replacements_and_deletions(store: Store) -> None:
    store.put("f/a", b"x")
    store.put("f/b", b"x")
    assert len(store.files("f")) == 2
    Store(store.url).put("f/b", b"longer")
    store.delete("f/a")
    assert [(file.path, file.bytes) for file in store.files("f")] == [("f/b", 6)]


def test_only_disks_keep_partial_files_and_only_buckets_unfinished_uploads(store: Store) -> None:
    store.put("a", b"x")
    assert store.uploads() == ()
    assert store.files("", partial=True) == store.files("")


def test_reading_a_range_returns_that_part_of_the_object(store: Store) -> None:
    store.put("f/x", bytes(range(100)))
    assert store.read_range("f/x", 0, 1) == b"\x00"
    assert store.read_range("f/x", 10, 5) == bytes(range(10, 15))
    assert store.read_range("f/x", 90, 500) == bytes(range(90, 100))
    for path in ("f/no", "f", "f/x/y"):
        with pytest.raises(DataError, match=f"{path}: no such object"):
            store.read_range(path, 0, 1)


@pytest.mark.parametrize(("start", "length"), [(-1, 2), (0, 0), (3, -1)])
def test_an_invalid_range_raises_a_value_error(store: Store, start: int, length: int) -> None:
    store.put("x", b"0123")
    with pytest.raises(ValueError, match="expected a start"):
        store.read_range("x", start, length)


def test_deleting_a_missing_object_is_no_error(store: Store) -> None:
    store.put("a", b"x")
    store.delete("a")
    store.delete("a")
    assert not store.exists("a")


def test_the_second_create_is_refused_and_changes_nothing(store: Store) -> None:
    assert store.create("m/key.json", b"first")
    assert not store.create("m/key.json", b"second")
    assert store.read("m/key.json") == b"first"
    assert store.names("m") == ("key.json",)


@pytest.mark.usefixtures("eager_threads")
def test_of_sixteen_threads_one_creates(store: Store, races: int) -> None:
    barrier = threading.Barrier(THREADS)

    def attempt(race: int, number: int) -> bool:
        barrier.wait()
        return store.create(f"race/{race}", bytes([number]))

    with ThreadPoolExecutor(THREADS) as threads:
        for race in range(races):
            won = list(threads.map(attempt, [race] * THREADS, range(THREADS)))
            assert sum(won) == 1
            assert store.read(f"race/{race}") == bytes([won.index(True)])


@pytest.mark.usefixtures("eager_threads")
def test_readers_see_an_old_or_a_new_object_whole(store: Store) -> None:
    old, new = b"o" * 200_000, b"n" * 300_000
    store.put("x", old)

    def write() -> set[bytes]:
        for _ in range(20):
            store.put("x", new)
            store.put("x", old)
        return set()

    def read() -> set[bytes]:
        return {store.read("x") for _ in range(40)}

    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(work) for work in (write, read, read, read)]
        seen = set().union(*(future.result() for future in futures))
    assert seen <= {old, new}


def test_a_store_is_pickled_as_its_url(store: Store) -> None:
    store.put("a", b"x")
    data = pickle.dumps(store)
    assert len(data) < 500
    twin = pickle.loads(data)
    assert twin == store
    assert twin.read("a") == b"x"


def test_the_probe_accepts_a_store_with_conditional_create_and_leaves_no_object(
    store: Store,
) -> None:
    assert probe(store)
    assert store.names(".probe") == ()


def test_the_probe_reports_a_store_without_conditional_create(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    def careless(self: Store, path: str, data: bytes) -> bool:
        self.put(path, data)
        return True

    monkeypatch.setattr(Store, "create", careless)
    assert not probe(store)


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for url in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(StorageError, match=f"{url}.*cannot be written"):
            probe(Store(str(url)))


@pytest.mark.parametrize("move", ["replace", "link", "fsync"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_writer_killed_by_an_exception_leaves_nothing_at_a_final_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    move: str,
    error: type[BaseException],
) -> None:
    store = local_store(tmp_path)
    write = store.create if move == "link" else store.put

    def killed(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(f"os.{move}", killed)
    with pytest.raises(error):
        write("data/x", b"half")
    monkeypatch.undo()
    assert not store.exists("data/x")
    assert list(Path(store.url, "data").iterdir()) == []
    assert store.create("data/x", b"whole")


@pytest.mark.parametrize("call", ["put", "create"])
def test_a_disk_that_keeps_half_of_what_was_written_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(os, "fsync", lambda number: os.ftruncate(number, 5))
    store = local_store(tmp_path)
    with pytest.raises(StorageError, match=r"data/x: cannot be written \(the disk holds 5 of 10"):
        getattr(store, call)("data/x", b"0123456789")
    assert store.files("", partial=True) == ()


def test_partial_files_of_a_killed_process_are_never_listed(tmp_path: Path) -> None:
    store = local_store(tmp_path)
    store.put("_done/a.json", b"x")
    Path(store.url, "_done", f".b.json.0123{backends.PARTIAL}").write_bytes(b"half")
    assert store.names("_done") == ("a.json",)
    assert [file.path for file in store.files("")] == ["_done/a.json"]
    assert [file.bytes for file in store.files("_done", partial=True)] == [4, 1]


def test_different_spellings_of_a_folder_give_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store("out") == Store(f"{tmp_path}/out/") == Store(f"file://{tmp_path}/out")
    assert Store("s3://bucket/prefix/").uri("a/b") == "s3://bucket/prefix/a/b"


def test_an_unknown_protocol_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"nosuch://x.*expected a folder or s3"):
        Store("nosuch://x")


@pytest.mark.parametrize(
    "error",
    [PermissionError(13, "Permission denied"), TimeoutError(), OSError(28, "No space left")],
)
@pytest.mark.parametrize(
    "call",
    ["read", "read_range", "exists", "names", "folders", "files", "put", "create", "delete"],
)
def test_errors_of_the_operating_system_become_storage_errors(
    monkeypatch: pytest.MonkeyPatch, error: Exception, call: str
) -> None:
    monkeypatch.setattr(store_module, "open_backend", lambda _url: BrokenBackend(error))
    arguments = {"put": (b"data",), "create": (b"data",), "read_range": (0, 1)}.get(call, ())
    with pytest.raises(StorageError, match="s3://bucket/x/a: cannot be") as caught:
        getattr(Store("s3://bucket/x"), call)("a", *arguments)
    assert caught.value.retryable
    assert "()" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_an_error_of_another_library_is_one_line_of_printable_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = OSError(f"refused\n\tby\x1b[2J the server{' again' * 1000}")
    monkeypatch.setattr(store_module, "open_backend", lambda _url: BrokenBackend(error))
    with pytest.raises(StorageError) as caught:
        Store("s3://bucket/x").read("a")
    assert str(caught.value).isprintable()
    assert r"(refused by\x1b[2J the server again" in str(caught.value)
    assert len(str(caught.value)) < 1200


def test_errors_of_cloud_clients_become_storage_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exceptions = pytest.importorskip("botocore.exceptions")
    for error in (
        exceptions.NoCredentialsError(),
        exceptions.EndpointConnectionError(endpoint_url="http://nowhere"),
        exceptions.ClientError({"Error": {"Code": "SlowDown"}}, "PutObject"),
    ):
        monkeypatch.setattr(store_module, "open_backend", lambda _url, e=error: BrokenBackend(e))
        with pytest.raises(StorageError):
            Store("s3://bucket/x").put("a", b"data")


def test_a_programming_error_is_not_turned_into_a_storage_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_module, "open_backend", lambda _url: BrokenBackend(KeyError("bug")))
    with pytest.raises(KeyError):
        Store("s3://bucket/x").read("a")


class CephFs:
    """Refuses a second create the way Ceph does through s3fs: EINVAL without words."""

    def __init__(self) -> None:
        """Start empty."""
        self.objects: dict[str, bytes] = {}

    def pipe_file(self, path: str, data: bytes, *, mode: str) -> None:
        """Create an object."""
        if path in self.objects:
            raise OSError(22, None)
        self.objects[path] = data

    def info(self, path: str) -> dict[str, object]:
        """Describe an object."""
        if path not in self.objects:
            raise FileNotFoundError(path)
        return {"type": "file", "size": len(self.objects[path])}

    def cat_file(self, path: str) -> bytes:
        """Return an object."""
        return self.objects[path]


def test_a_refusal_without_a_message_counts_only_if_the_object_exists() -> None:
    fs = CephFs()
    backend = object_backend.ObjectBackend(fs, "bucket/prefix")
    assert backend.create("a", b"x")
    assert not backend.create("a", b"x")
    fs.info = lambda path: (_ for _ in ()).throw(FileNotFoundError(path))  # type: ignore[method-assign]
    with pytest.raises(OSError, match="22"):
        backend.create("a", b"x")


def test_a_conditional_create_too_large_for_one_request_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(object_backend, "MAX_CREATE_BYTES", 10)
    with pytest.raises(ValueError, match="11 bytes"):
        memory_store(Path()).create("a", b"x" * 11)


def test_s3_listings_are_never_cached_and_optional_checksums_are_off() -> None:
    pytest.importorskip("s3fs")
    fs, root = filesystems.open_filesystem("s3://bucket/prefix")
    assert root == "bucket/prefix"
    assert not fs.dircache.use_listings_cache
    config = fs._prepare_config_kwargs()
    assert config["request_checksum_calculation"] == "when_required"
    assert config["response_checksum_validation"] == "when_required"
    assert config["read_timeout"] > 0
