"""Processes of a machine that need the same bytes hold them once, however they end."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_core.storage import shared_files
from distill_core.storage.shared_files import Write, shared_file
from tests.support.repository import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files are shared on Linux only")
NAME, OTHER = "ab" * 16, "cd" * 16
MIB = 1 << 20
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of temporary files of this test and its processes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a process which holds a file."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str = NAME, size: int = MIB, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.support.shared_holder", name, str(size), *options]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=ROOT, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    facts: dict[str, Any] = json.loads(process.stdout.readline())
    return facts


def again(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return answer(process)


def end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait() == 0


def write_one(value: int, size: int = MIB) -> Callable[[Write], None]:
    return lambda write: write(bytes([value]) * size)


def content(name: str, fill: Callable[[Write], None]) -> tuple[shared_files.SharedFile, np.ndarray]:
    file = shared_file(name, fill, size=MIB)
    return file, np.frombuffer(file.map(), np.uint8)


def entries(folder: Path) -> list[str]:
    (own,) = folder.iterdir()
    return sorted(path.name for path in own.iterdir())


def test_two_processes_together_hold_the_bytes_once(start: Start) -> None:
    size = 64 * MIB
    first = start(size=size)
    assert answer(first)["filled"]
    second = start(size=size)
    assert answer(second) | {"memory": 0} == {
        "filled": False,
        "shared": True,
        "sum": size,
        "memory": 0,
    }
    memory = again(first)["memory"] + again(second)["memory"]
    assert 0.9 * size < memory < 1.2 * size


def test_the_bytes_stay_for_the_others_when_the_process_that_filled_them_is_killed(
    start: Start, temporary: Path
) -> None:
    first = start()
    answer(first)
    second = start()
    answer(second)
    first.kill()
    first.wait()
    third = start()
    assert not answer(third)["filled"]
    assert again(second)["sum"] == MIB
    assert len(entries(temporary)) == 2  # that of the killed process is gone


def test_nothing_is_left_when_the_last_process_ends(start: Start, temporary: Path) -> None:
    first, second = start(), start()
    answer(first), answer(second)
    end(first)
    end(second)
    assert entries(temporary) == []
    assert answer(start())["filled"]


def test_a_file_of_a_process_that_was_killed_while_it_filled_it_is_filled_by_the_next(
    start: Start, temporary: Path
) -> None:
    first = start(NAME, MIB, "pause")
    assert first.stdout is not None
    assert first.stdout.readline() == "half\n"
    second = start()  # it waits for the first
    first.kill()
    assert answer(second) | {"memory": 0} == {
        "filled": True,
        "shared": True,
        "sum": MIB,
        "memory": 0,
    }
    assert len(entries(temporary)) == 1


def test_files_of_other_names_are_not_mixed() -> None:
    (one, ones), (two, twos) = content(NAME, write_one(1)), content(OTHER, write_one(2))
    joined, same = content(NAME, write_one(3))
    assert [set(each.tolist()) for each in (ones, twos, same)] == [{1}, {2}, {1}]
    for file in (one, two, joined):
        file.close()
    assert set(ones.tolist()) == {1}  # maps outlive the file


def test_what_one_process_writes_to_its_map_no_other_reads() -> None:
    (_one, ones), (_two, same) = content(NAME, write_one(1)), content(NAME, write_one(3))
    ones[:] = 7
    assert set(same.tolist()) == {1}


def test_an_error_while_a_file_is_filled_leaves_nothing(temporary: Path) -> None:
    def fail(write: Write) -> None:
        write(b"half")
        raise ValueError("the store is away")

    with pytest.raises(ValueError, match="the store is away"):
        shared_file(NAME, fail, size=MIB)
    assert entries(temporary) == []
    _file, ones = content(NAME, write_one(1))
    assert set(ones.tolist()) == {1}


def test_files_that_are_not_ours_are_never_deleted(temporary: Path) -> None:
    folder = temporary / f"distill-{os.getuid()}"
    folder.mkdir(mode=0o700)
    kept = [folder / "notes.txt", folder / f"{NAME}.json", folder / f"{NAME}.{'0' * 15}"]
    stale = [folder / f"{NAME}.{'0' * 16}", folder / f"{OTHER}.lock"]
    target = temporary / "target"
    target.write_text("kept")
    for path in (*kept, *stale):
        path.write_text("{}")
    link = folder / f"{OTHER}.{'1' * 16}"
    link.symlink_to(target)
    file, _ones = content(NAME, write_one(1))
    left = {path.name for path in folder.iterdir()}
    assert left > {path.name for path in (*kept, link)}
    assert not left & {path.name for path in stale}
    assert target.read_text() == "kept"
    file.close()


@pytest.mark.parametrize("mode", [0o777, 0o750])
def test_a_folder_that_others_may_enter_is_not_used(mode: int, temporary: Path) -> None:
    folder = temporary / f"distill-{os.getuid()}"
    folder.mkdir()
    folder.chmod(mode)
    (one, ones), (two, twos) = content(NAME, write_one(1)), content(NAME, write_one(2))
    assert (one.is_shared, two.is_shared) == (False, False)
    assert [set(each.tolist()) for each in (ones, twos)] == [{1}, {2}]
    assert list(folder.iterdir()) == []


def test_a_file_of_a_process_that_cannot_be_reached_is_filled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A container that shares the folder, but not the processes, has its own file."""
    _one, _ = content(NAME, write_one(1))
    monkeypatch.setattr(shared_files._Holder, "open", lambda holder: None)
    two, twos = content(NAME, write_one(2))
    assert two.is_shared
    assert set(twos.tolist()) == {2}


@pytest.mark.parametrize(("memory", "is_on_disk"), [(2 * MIB, False), (MIB, True)])
def test_a_file_above_half_of_the_memory_is_on_the_disk(
    memory: int, is_on_disk: bool, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    monkeypatch.setattr(shared_files, "machine_memory", lambda: memory)
    file, ones = content(NAME, write_one(1))
    assert (os.fstat(file.file).st_dev == temporary.stat().st_dev) == is_on_disk
    assert int(ones.sum()) == MIB
    assert not [path for path in temporary.iterdir() if path.is_file()]


def test_a_python_without_memory_files_keeps_them_on_the_disk_and_shares_them(
    monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    """Builds of Python for an old glibc have no `os.memfd_create`."""
    monkeypatch.delattr(os, "memfd_create")
    one, ones = content(NAME, write_one(1))
    assert os.fstat(one.file).st_dev == temporary.stat().st_dev
    two, same = content(NAME, write_one(2))  # joins, and fills nothing
    assert os.path.samestat(os.fstat(one.file), os.fstat(two.file))
    assert int(ones.sum()) == int(same.sum()) == MIB


def test_an_entry_that_does_not_fit_on_the_disk_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if bytes(data).startswith(b"{"):  # an entry
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    before = os.listdir("/proc/self/fd")
    shared_file(NAME, write_one(1), size=MIB).close()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert [path for path in temporary.rglob("*") if path.is_file()] == []
