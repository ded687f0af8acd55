"""One process creates a file, with and without hard links, also if processes are killed."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill_core.errors import StorageError, StorageRefused
from distill_core.storage import exclusive
from distill_core.storage.store import Store, probe
from tests.support.places import local_store

PROCESSES = 8
RACES = 25
WAYS = ("link", "rename", "claim")
CALLS = ("link", "rename", "mkdir", "rmdir", "unlink", "fsync", "listdir")
KILLED = 9  # exit code

fork = multiprocessing.get_context("fork")


def unsupported(*_arguments: object) -> None:
    """Refuse as a file system does that lacks the operation."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def limit(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Leave one way of creating a file, as on file systems without the earlier ones."""
    if way != "link":
        monkeypatch.setattr(os, "link", unsupported)
    if way == "claim":
        monkeypatch.setattr(exclusive, "_renameat2", lambda: None)


@pytest.fixture(params=WAYS)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return an empty store on a disk that offers one of the three ways."""
    if request.param == "rename" and exclusive._renameat2() is None:
        pytest.skip("this system has no renameat2")
    limit(monkeypatch, request.param)
    return local_store(tmp_path)


def content(number: int) -> bytes:
    """Return what a process writes, longer than a page."""
    return bytes([number]) * 9000


def hidden(store: Store) -> list[Path]:
    """Return what is left of unfinished writes."""
    return [path for path in Path(store.url).rglob("*") if path.name.startswith(".")]


@contextmanager
def children(count: int, work: Callable[..., None], *arguments: Any) -> Iterator[list[Any]]:
    """Run forked processes, which inherit what is patched; yield them when they have ended."""
    processes = [fork.Process(target=work, args=(n, *arguments)) for n in range(count)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of any fork
        for process in processes:
            process.start()
    for process in processes:
        process.join(60)
    assert all(process.exitcode is not None for process in processes)
    yield processes


def test_the_second_create_is_refused_and_leaves_nothing_hidden(store: Store) -> None:
    assert probe(store)
    assert store.create("_done/a.json", b"first")
    assert not store.create("_done/a.json", b"second")
    assert store.read("_done/a.json") == b"first"
    assert store.names("_done") == ("a.json",)
    assert store.folders("_done") == ()
    assert [path.name for path in hidden(store)] == [".probe"]


def race(number: int, store: Store, start: Any, wins: Any) -> None:
    """Create the same files as every other process."""
    for round_ in range(RACES):
        start.wait(60)
        if store.create(f"_done/{round_}", content(number)):
            wins.put((round_, number))


def test_of_eight_processes_one_creates(store: Store) -> None:
    start, wins = fork.Barrier(PROCESSES), fork.SimpleQueue()
    with children(PROCESSES, race, store, start, wins) as processes:
        assert [process.exitcode for process in processes] == [0] * PROCESSES
    winners = [wins.get() for _ in range(RACES)]
    assert wins.empty()
    assert sorted(number for number, _ in winners) == list(range(RACES))
    for round_, number in winners:
        assert store.read(f"_done/{round_}") == content(number)
    assert hidden(store) == []


def kill_at(number: int) -> None:
    """Let this process die in front of a call to the operating system, counted from here."""
    left = [number]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            if not left[0]:
                os._exit(KILLED)
            left[0] -= 1
            return call(*arguments, **options)

        return run

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    if (found := exclusive._renameat2()) is not None:
        exclusive._renameat2 = lambda: counted(found)  # type: ignore[assignment]


def create_and_die(number: int, store: Store, step: int, wins: Any) -> None:
    """Create a file, and report it if this process lives long enough."""
    kill_at(step)
    if store.create("_done/x", content(number)):
        wins.put(number)


def test_a_process_killed_at_any_step_leaves_a_whole_file_or_none(store: Store) -> None:
    for step in range(100):
        wins = fork.SimpleQueue()
        with children(1, create_and_die, store, step, wins) as (process,):
            pass
        assert store.names("_done") in ((), ("x",))
        won = store.create("_done/x", content(1))
        assert store.read("_done/x") == content(int(won))
        assert not (won and not wins.empty())
        assert store.names("_done") == ("x",)
        assert store.folders("_done") == ()
        store.delete("_done/x")
        if process.exitcode != KILLED:
            break
    assert process.exitcode == 0
    assert step >= 3


def test_of_processes_of_which_some_are_killed_at_most_one_creates(store: Store) -> None:
    draw = random.Random(7)
    for round_ in range(RACES):
        wins = fork.SimpleQueue()
        with children(PROCESSES, create_or_die, store, draw.random(), wins):
            pass
        store.create("_done/x", content(PROCESSES))
        stored = store.read("_done/x")
        assert stored in [content(number) for number in range(PROCESSES + 1)], round_
        if not wins.empty():
            assert content(wins.get()) == stored
        assert wins.empty()
        store.delete("_done/x")


def create_or_die(number: int, store: Store, seed: float, wins: Any) -> None:
    """Create a file; half of the processes die at a random step."""
    draw = random.Random(f"{seed}/{number}")
    step = draw.randrange(1, 12) if draw.random() < 0.5 else 1000
    create_and_die(number, store, step, wins)


def test_a_disk_that_offers_none_of_the_ways_serves_a_single_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, "claim")
    monkeypatch.setattr(os, "rename", unsupported)
    store = local_store(tmp_path)
    assert not probe(store)
    with pytest.raises(StorageRefused, match=r"no conditional create.*--single-writer"):
        store.create("_done/x", b"first")
    single = replace(store, single_writer=True)
    assert single.create("_done/x", b"first")
    assert not single.create("_done/x", b"second")
    assert store.read("_done/x") == b"first"
    assert [path.name for path in hidden(store)] == [".probe"]


def test_another_error_of_a_link_is_not_taken_for_a_missing_feature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StorageError, match="No space left on device"):
        local_store(tmp_path).create("_done/x", b"first")


def test_a_foreign_file_in_a_claim_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, "claim")
    store = local_store(tmp_path)
    foreign = Path(store.url, "_done", f".x{exclusive.CLAIM}", "notes.txt")
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    with pytest.raises(StorageError, match=r"\.x\.claim\.partial holds a file that is not ours"):
        store.create("_done/x", b"first")
    assert foreign.read_text() == "mine"
    assert not store.exists("_done/x")
