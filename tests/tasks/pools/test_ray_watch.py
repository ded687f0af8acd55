"""The watch over Ray, with other processes and ports in its place."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill_core.errors import ClusterError
from tasks.pools import ray_watch
from tasks.pools.ray_watch import OwnRay, RayWatch, reachable
from tests.support.waiting import wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
HANGS = """
import time
from tasks.pools.ray_watch import RayWatch
watch = RayWatch(lambda: "Ray is gone.", notice_seconds=0.1, in_call=lambda thread: True)
with watch.watching():
    time.sleep(600)
"""
Processes = dict[str, list[subprocess.Popen[bytes]]]


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Start processes with the names of Ray's, and end them."""
    names = ("gcs_server", "raylet", "monitor")
    started = {name: [subprocess.Popen(SLEEP)] for name in names}
    yield started
    for (process,) in started.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize(("name", "role"), [("raylet", "raylet"), ("gcs_server", "GCS")])
def test_the_loss_of_a_core_process_ends_the_others_and_keeps_its_log(
    processes: Processes, name: str, role: str, tmp_path: Path
) -> None:
    (tmp_path / f"{name}.err").write_text("the last words")
    own = OwnRay(processes, tmp_path)
    assert own.look() is None
    processes[name][0].kill()
    loss = wait_until(own.look, "the loss")
    head, _, place = loss.rpartition(" Its log is in ")
    assert head == f"Ray on this machine is gone: its {role} was killed by SIGKILL."
    kept = Path(place.removesuffix("."))
    assert "the last words" in kept.read_text()
    kept.unlink()
    own.end()
    for other in ("raylet", "monitor"):
        assert processes[other][0].wait(60) is not None
    assert (processes["gcs_server"][0].poll() is None) == (name == "raylet")


def test_the_loss_of_another_process_of_ray_is_no_loss(
    processes: Processes, tmp_path: Path
) -> None:
    own = OwnRay(processes, tmp_path)
    processes["monitor"][0].kill()
    processes["monitor"][0].wait()
    assert own.look() is None


def test_a_port_that_answers_again_in_time_is_no_loss() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        looks = {seconds: reachable({"GCS": address}, seconds) for seconds in (0.0, 3600.0)}
        assert [look() for look in looks.values()] == [None, None]
    assert looks[3600.0]() is None
    loss = wait_until(looks[0.0], "the loss")
    assert loss.startswith(f"The Ray cluster is gone: its GCS at 127.0.0.1:{address[1]} has not")


def test_the_thread_of_the_stages_learns_of_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_watch, "_watch", None)  # other tests may use a Ray of this process
    ray_watch.check()
    with RayWatch(lambda: "Ray is gone.", notice_seconds=3600).watching():
        wait_until(ray_watch.lost, "the loss")
        with pytest.raises(ClusterError, match=r"^Ray is gone\.$"):
            ray_watch.check()
    ray_watch.check()


def test_a_process_that_does_not_notice_is_ended_as_by_sigterm() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], timeout=60, check=False)
    assert done.returncode == -15
