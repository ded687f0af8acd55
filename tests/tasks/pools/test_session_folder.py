"""Folders of local Ray sessions are removed by their driver or by the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.pools.session_folder import OWNER, SIGNATURE, session_folder

HOLDS = """
import sys, threading
from tasks.pools.session_folder import session_folder
with session_folder(sys.argv[1]) as folder:
    print(folder, flush=True)
    threading.Event().wait()
"""


@contextmanager
def driver(parent: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Start a process that holds a folder; yield both."""
    command = [sys.executable, "-c", HOLDS, str(parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def age(folder: Path) -> None:
    """Set the modification time of a folder to long ago."""
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (0, 0))


def test_a_session_folder_is_removed_at_the_end_of_its_block(tmp_path: Path) -> None:
    with session_folder(str(tmp_path)) as folder:
        assert Path(folder).is_dir()
    assert not list(tmp_path.iterdir())


def test_the_next_start_removes_folders_of_dead_drivers_only(
    tmp_path: Path,
) -> None:
    with driver(tmp_path) as (killed, left), driver(tmp_path) as (_, living):
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        with session_folder(str(tmp_path)) as early:  # Ray's processes may still write
            assert set(tmp_path.iterdir()) == {left, living, Path(early)}
        for folder in (left, living):
            age(folder)
        with session_folder(str(tmp_path)) as mine:
            assert set(tmp_path.iterdir()) == {living, Path(mine)}


def test_folders_of_other_programs_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ray-without-an-owner", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "other" / OWNER).touch()
    for name, text in (("ray-notes", b""), ("ray-tracing", b"owner: me\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / OWNER).write_bytes(text)
    for folder in tmp_path.iterdir():
        age(folder)
    kept = set(tmp_path.iterdir())
    with session_folder(str(tmp_path)):
        assert kept < set(tmp_path.iterdir())
    foreign = tmp_path / "ray-of-another-user"
    foreign.mkdir()
    (foreign / OWNER).write_bytes(SIGNATURE)
    age(foreign)
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with session_folder(str(tmp_path)):
        assert foreign.is_dir()
