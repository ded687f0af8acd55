"""Tests of the script that starts the gateway of the tests, with stand-ins for Ceph."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.s3_servers import RGW

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "curl")
REACHED = "the first program of Ceph was reached"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment whose programs of Ceph all fail with a sentence of their own."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).write_text(f'#!/bin/sh\necho "{REACHED}" >&2\nexit 1\n')
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "DISTILL_CEPH_HOME": str(tmp_path / "home")}


def started(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the script's `start`."""
    return subprocess.run(
        [RGW, "start"], env=environment, capture_output=True, text=True, check=False
    )


def write_pid(environment: dict[str, str], pid: int) -> Path:
    """Leave a folder behind as a server does whose process had this number."""
    home = Path(environment["DISTILL_CEPH_HOME"])
    (home / "run").mkdir(parents=True)
    (home / "ceph.conf").write_text("[global]\n")
    (home / "run" / "mon.a.pid").write_text(f"{pid}\n")
    return home


def test_a_server_that_was_lost_with_its_machine_does_not_keep_the_next_from_starting(
    environment: dict[str, str],
) -> None:
    home = write_pid(environment, os.getpid())  # the number now belongs to another process
    done = started(environment)
    assert done.returncode != 0
    assert REACHED in done.stderr
    assert "in use" not in done.stderr
    assert not home.exists()


def test_a_server_that_runs_is_not_started_again(environment: dict[str, str]) -> None:
    home = Path(environment["DISTILL_CEPH_HOME"])
    server = subprocess.Popen(
        ["sleep", "600"], env=environment | {"CEPH_CONF": f"{home}/ceph.conf"}
    )
    try:
        write_pid(environment, server.pid)
        done = started(environment)
        assert done.returncode == 1
        assert f"{home} is in use; run: {RGW} stop" in done.stderr
        assert server.poll() is None
    finally:
        server.kill()
        server.wait()


def test_a_folder_that_is_not_of_ceph_is_kept(environment: dict[str, str]) -> None:
    home = Path(environment["DISTILL_CEPH_HOME"])
    (home / "notes").mkdir(parents=True)
    subprocess.run([RGW, "stop"], env=environment, check=True)
    assert (home / "notes").exists()
