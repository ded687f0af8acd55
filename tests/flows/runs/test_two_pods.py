"""A driver in another pod than the head: it cannot join, but it can submit and cancel."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import psutil
import pytest

from tests.support.pipeline import TINY
from tests.support.pods import Pod, reason_to_skip, two_pods
from tests.support.repository import ROOT
from tests.support.waiting import wait_until

SKIP = reason_to_skip()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.skipif(SKIP is not None, reason=str(SKIP)),
]
SMALL = (*TINY, 'posttrain.sets=["distilled"]')
BIN = Path(sys.executable).parent
STOP_SECONDS = 30  # ten are promised; a busy machine may take longer


@contextmanager
def head(pod: Pod, env: Mapping[str, str], log: Path) -> Iterator[Popen[bytes]]:
    """Run the head of a cluster until the end of the block."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ray") as folder:
        process = pod.start(
            *(str(BIN / "ray"), "start", "--head", "--block", "--port=6379", "--num-cpus=1"),
            *(f"--node-ip-address={pod.address}", "--dashboard-host=0.0.0.0"),
            *("--object-store-memory=100000000", f"--temp-dir={folder}", "--disable-usage-stats"),
            env=env,
            log=log,
        )
        try:
            wait_until(lambda: ended(process) or b"block forever" in log.read_bytes(), "the head")
            assert not ended(process), log.read_text()
            yield process
        finally:
            process.kill()  # and with it, every process of its namespace
            process.wait(STOP_SECONDS)


def ended(process: Popen[bytes]) -> bool:
    return process.poll() is not None


def workers_below(process: Popen[bytes]) -> list[psutil.Process]:
    """Return the drivers of jobs below a head, and the actors of recover."""
    every = psutil.Process(process.pid).children(recursive=True)
    return [p for p in every if is_driver_or_actor(p)]


def is_driver_or_actor(process: psutil.Process) -> bool:
    try:
        found = process.as_dict(["name", "status"])
    except psutil.NoSuchProcess:
        return False
    is_ours = found["name"] == "distill" or found["name"].startswith("ray::Recover")
    return is_ours and found["status"] != psutil.STATUS_ZOMBIE


def test_a_driver_in_another_pod_is_refused_and_submits_and_cancels(tmp_path: Path) -> None:
    store, number = tmp_path / "store", iter(range(9))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PREFECT_"))}
    env = {
        **clean,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "PATH": f"{BIN}:{clean['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), clean.get("PYTHONPATH", "")]),
    }

    def distill(pod: Pod, *arguments: str) -> tuple[Popen[bytes], Path]:
        log, place = tmp_path / f"{next(number)}.log", ("--store", str(store), "--workers", "1")
        command = (sys.executable, "-m", "flows.cli", *arguments, *place)
        return pod.start(*command, env=env, log=log), log

    def run(pod: Pod, *arguments: str) -> tuple[int, str]:
        process, log = distill(pod, *arguments)
        wait_until(lambda: ended(process), arguments[-1])
        return process.returncode, log.read_text()

    with two_pods() as (there, here), head(there, env, tmp_path / "head.log") as cluster:
        joined = ("--ray-address", f"{there.address}:6379")
        code, said = run(here, "run", "digits-demo", *SMALL, *joined)
        assert (code, said.count("\n")) == (2, 1), said
        jobs = f"http://{there.address}:8265"
        assert "is not a node of the cluster" in said
        assert f"--submit {jobs}" in said

        endless = ("recover.steps=1000000", "--name", "endless", "--submit", jobs)
        process, log = distill(here, "run", "digits-demo", *SMALL, *endless)
        wait_until(lambda: ended(process) or b"recover: started" in log.read_bytes(), "recover")
        wait_until(lambda: ended(process) or len(workers_below(cluster)) > 1, "an actor")
        assert not ended(process), log.read_text()
        (driver,) = [p for p in psutil.Process(process.pid).children(True) if p.name() != "unshare"]
        driver.send_signal(signal.SIGTERM)
        wait_until(lambda: ended(process), "the command's end", STOP_SECONDS)
        wait_until(lambda: not workers_below(cluster), "the job's end", STOP_SECONDS)
        assert process.returncode == 128 + signal.SIGTERM
        assert "has been stopped" in log.read_text()

        code, said = run(here, "run", "digits-demo", *SMALL, "--name", "whole", "--submit", jobs)
        assert code == 0, said
        assert "squeeze: started, 1 shard, 1 done before" in said, "the cancelled run's is kept"
        assert "distilled images, soft labels" in said
