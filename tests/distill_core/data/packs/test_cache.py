"""Packs on a local disk: loaded once per machine, bounded, and never wrong."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distill_core.data.packs import cache as module
from distill_core.data.packs import cache_settings
from distill_core.data.packs.cache import PackCache
from distill_core.data.packs.cache_settings import open_cache
from distill_core.errors import ConfigError
from distill_core.storage.digest import sha256
from distill_core.storage.markers import FileInfo
from tests.support.pack_loader import SLOW, pack_of, read_noted
from tests.support.waiting import wait_until

RUN = (sys.executable, "-m", "tests.support.pack_loader")
HOUR = 3600


class Loads:
    """A store of packs in memory that notes what is read."""

    def __init__(self) -> None:
        self.packs: dict[str, bytes] = {}
        self.read: list[int] = []

    def pack(self, seed: int, size: int = 1000) -> FileInfo:
        """Add a pack and return its description."""
        data = np.random.default_rng(seed).bytes(size)
        self.packs[sha256(data)] = data
        return FileInfo("00000.pack", f"pack/data/{seed}", size, sha256(data))

    def load(self, pack: FileInfo) -> Callable[[int, int], bytes]:
        """Return how a pack is read from the store."""

        def read(offset: int, size: int) -> bytes:
            self.read.append(size)
            return self.packs[pack.sha256][offset : offset + size]

        return read

    def get(self, cache: PackCache, pack: FileInfo, *, keep: bool = True) -> bytes | None:
        """Return a part of a pack from the cache."""
        return cache.read(pack, 10, 20, load=self.load(pack) if keep else None)


@pytest.fixture
def loads() -> Loads:
    """Return a store without packs."""
    return Loads()


def names(folder: Path) -> set[str]:
    """Return the names of the packs in a folder, and of those that are being loaded."""
    return {path.name for path in folder.iterdir()} - {".lock"}


def aged(folder: Path, pack: FileInfo, seconds: float) -> None:
    """Let a pack look as if it had not been used for some time."""
    then = time.time() - seconds
    os.utime(folder / f"{pack.sha256}.pack", (then, then))


def test_a_pack_is_loaded_once_and_then_read_from_the_disk(
    tmp_path: Path, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 300)
    pack, expected = loads.pack(1), None
    expected = loads.packs[pack.sha256][10:30]
    assert loads.get(PackCache(tmp_path), pack, keep=False) is None
    assert loads.read == []
    for _ in range(2):
        assert loads.get(PackCache(tmp_path), pack) == expected
        assert loads.get(PackCache(tmp_path), pack, keep=False) == expected
    assert loads.read == [300, 300, 300, 100]
    assert names(tmp_path) == {f"{pack.sha256}.pack"}


def test_several_processes_load_a_pack_once(tmp_path: Path) -> None:
    store, notes = tmp_path / "store", tmp_path / "notes"
    store.write_bytes(np.random.default_rng(0).bytes(100_000))
    command = (*RUN, str(tmp_path / "cache"), str(store), str(notes))
    environment = os.environ | {SLOW: "0.3"}
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        for _ in range(3)
    ]
    found = {process.communicate()[0].strip() for process in processes}
    assert found == {pack_of(store).sha256}
    assert len(notes.read_text().splitlines()) == 1


def test_a_process_that_is_killed_leaves_no_pack_and_the_next_one_loads_it(tmp_path: Path) -> None:
    store, notes, folder = tmp_path / "store", tmp_path / "notes", tmp_path / "cache"
    store.write_bytes(np.random.default_rng(0).bytes(100_000))
    command = (*RUN, str(folder), str(store), str(notes))
    process = subprocess.Popen(command, env=os.environ | {SLOW: "600"})
    try:
        wait_until(notes.exists, "a read of the store")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    pack = pack_of(store)
    (left,) = names(folder)
    assert left.endswith(".loading")
    assert PackCache(folder).read(pack, 0, 9) is None
    data = PackCache(folder).read(
        pack, 0, pack.bytes, load=lambda first, size: read_noted(store, notes, first, size)
    )
    assert data == store.read_bytes()
    assert names(folder) == {f"{pack.sha256}.pack"}


def test_the_packs_that_were_not_used_for_longest_make_room(tmp_path: Path, loads: Loads) -> None:
    cache, packs = PackCache(tmp_path, 3000), [loads.pack(n) for n in range(4)]
    for pack in packs[:3]:
        loads.get(cache, pack)
    for pack, hours in zip(packs, (3, 2, 1.5), strict=False):
        aged(tmp_path, pack, hours * HOUR)
    loads.get(PackCache(tmp_path, 3000), packs[0])  # used now
    assert loads.get(cache, packs[3]) is not None
    assert names(tmp_path) == {f"{packs[n].sha256}.pack" for n in (0, 2, 3)}


def test_packs_in_use_are_not_removed_for_others_and_these_are_read_from_the_store(
    tmp_path: Path, loads: Loads
) -> None:
    """So a dataset that is larger than the cache does not load packs again and again."""
    cache, packs = PackCache(tmp_path, 2500), [loads.pack(n) for n in range(5)]
    for _ in range(3):
        kept = [loads.get(cache, pack) is not None for pack in packs]
        assert kept == [True, True, False, False, False]
    assert loads.read == [1000, 1000]
    assert (
        PackCache(tmp_path / "other", 500).read(packs[0], 0, 1, load=loads.load(packs[0])) is None
    )


def test_files_of_others_stay(tmp_path: Path, loads: Loads) -> None:
    foreign = {"0" * 63 + ".pack", "1" * 64 + ".pack.bak", "notes.txt", "." + "2" * 64 + ".loading"}
    for name in foreign:
        (tmp_path / name).write_bytes(bytes(5000))
        os.utime(tmp_path / name, (0, 0))
    cache, packs = PackCache(tmp_path, 1000), [loads.pack(n) for n in range(2)]
    for pack in packs:
        assert loads.get(cache, pack) is not None
        aged(tmp_path, pack, 2 * HOUR)
    assert names(tmp_path) == foreign | {f"{packs[1].sha256}.pack"}


def test_a_folder_of_another_user_or_a_link_is_not_used(
    tmp_path: Path, loads: Loads, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    pack = loads.pack(1)
    for folder, user in ((tmp_path / "link", os.getuid()), (tmp_path / "real", os.getuid() + 1)):
        monkeypatch.setattr(os, "getuid", lambda user=user: user)
        cache = PackCache(folder)
        assert [loads.get(cache, pack) for _ in range(3)] == [None] * 3
    assert loads.read == []
    assert len(caplog.messages) == 2
    assert "is a link or belongs to another user" in caplog.text


def test_a_full_disk_is_reported_once_and_packs_come_from_the_store(
    tmp_path: Path, loads: Loads, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache, first, second = PackCache(tmp_path), loads.pack(1), loads.pack(2)
    assert loads.get(cache, first) is not None

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert [loads.get(cache, second) for _ in range(3)] == [None] * 3
    assert loads.get(cache, first) is not None  # what is there is read
    assert caplog.messages == [
        "Packs are not kept on this disk, but read from the store: "
        f"{tmp_path}: No space left on device."
    ]
    assert names(tmp_path) == {f"{first.sha256}.pack"}


def test_a_file_of_another_size_or_with_other_bytes_is_not_used(
    tmp_path: Path, loads: Loads
) -> None:
    cache, pack = PackCache(tmp_path), loads.pack(1)
    loads.get(cache, pack)
    path = tmp_path / f"{pack.sha256}.pack"
    path.write_bytes(path.read_bytes()[:500])
    assert loads.get(cache, pack, keep=False) is None
    wrong = loads.pack(2)
    loads.packs[wrong.sha256] = bytes(1000)  # the store has other bytes than the marker states
    assert loads.get(cache, wrong) is None
    assert names(tmp_path) == set()


def test_the_default_is_a_folder_of_the_user_unless_temporary_files_are_in_memory(
    tmp_path: Path, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in (cache_settings.FOLDER, cache_settings.BYTES):
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "of temporary files"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(cache_settings, "MOUNTS", mounts)
    for kind in ("ext4", ""):
        text = f"/dev/x {tmp_path} {kind} rw 0 0\n" if kind else ""
        mounts.write_text(f"tmpfs /nowhere tmpfs rw 0 0\n{text}")
        cache = open_cache("s3://bucket/store")
        assert cache is not None
        assert loads.get(cache, loads.pack(1)) is not None
    assert [path.name for path in folder.iterdir()] == [f"distill-packs-{os.getuid()}"]
    mounts.write_text(f"/dev/x / ext4 rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\n")
    assert open_cache("s3://bucket/store") is None
    monkeypatch.setenv(cache_settings.FOLDER, str(folder))
    assert open_cache("s3://bucket/store") is not None


def test_the_environment_sets_the_folder_and_the_size(
    tmp_path: Path, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache_settings.FOLDER, str(tmp_path / "here"))
    monkeypatch.setenv(cache_settings.BYTES, "1500")
    cache = open_cache("s3://bucket/store")
    assert cache is not None
    assert [loads.get(cache, loads.pack(n)) is not None for n in range(2)] == [True, False]
    assert len(list((tmp_path / "here" / "distill-packs").glob("*.pack"))) == 1
    assert open_cache(str(tmp_path)) is None  # a folder needs none
    monkeypatch.setenv(cache_settings.BYTES, "0")
    assert open_cache("s3://bucket/store") is None
    for variable, value in ((cache_settings.BYTES, "10 GB"), (cache_settings.FOLDER, "here")):
        with monkeypatch.context() as patch:
            patch.setenv(cache_settings.BYTES, "9")
            patch.setenv(variable, value)
            with pytest.raises(ConfigError, match=f"{variable}: '{value}', expected"):
                open_cache("s3://bucket/store")
