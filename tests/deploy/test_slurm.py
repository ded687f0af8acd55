"""The SLURM script, run without SLURM: `srun` starts the step on this machine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distill_core.storage.store import Store
from tasks.run import open_run
from tests.support.deployment import DEPLOY, read
from tests.support.pipeline import TINY, execute, manifest, tiny_run
from tests.support.repository import ROOT
from tests.support.waiting import wait_until

SCRIPT = DEPLOY / "slurm" / "distill.sbatch"
SRUN = """#!/bin/sh
echo "srun $*" >>"$CALLS"
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/sh
echo "scontrol $*" >>"$CALLS"
[ "$1" = requeue ] || echo "JobId=$4 JobName=distill JobState=$STATE Reason=None"
"""
# As the real one: it propagates the exit code of the driver, and ends with 0 if Ray does not start.
RAY = """#!/bin/sh
echo "ray $*" >>"$CALLS"
[ -z "$NO_RAY" ] || exit 0
while [ "$1" != -- ]; do shift; done
shift
"$@"
"""
DISTILL = """#!/bin/sh
echo "distill $*" >>"$CALLS"
trap 'exit 143' TERM
[ -z "$HANGS" ] || while :; do sleep 0.05; done
exit "$CODE"
"""


class Cluster:
    """Programs of a SLURM cluster, and what was called."""

    def __init__(self, folder: Path) -> None:
        self.bin, self._calls = folder / "bin", folder / "calls"
        self.bin.mkdir()
        programs = {"srun": SRUN, "scontrol": SCONTROL, "ray": RAY, "distill": DISTILL}
        for name, text in programs.items():
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)
        self.environment = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "CALLS": str(self._calls),
            "STATE": "RUNNING",
            "CODE": "0",
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_ON_NODE": "3",
            "SLURM_GPUS_ON_NODE": "1",
            "DISTILL_HEAD_IP": "192.0.2.7",
        }

    def start(self, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        """Start the script with a command of distill."""
        return subprocess.Popen(
            ["bash", SCRIPT, *arguments],
            env=self.environment | changes,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **changes: str) -> tuple[int, str]:
        """Run the script to its end; return its exit code and what it reported."""
        process = self.start(*arguments, **changes)
        _, err = process.communicate(timeout=60)
        return process.returncode, err

    def calls(self, program: str) -> list[str]:
        """Return the command lines of a program."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [line for line in lines if line.split()[0] == program]

    @property
    def requeued(self) -> bool:
        """Return whether the job was queued again."""
        return any(" requeue " in call for call in self.calls("scontrol"))


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """Return a cluster on which nothing was called yet."""
    return Cluster(tmp_path)


def test_the_file_is_a_script_without_remarks_of_a_checker() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    if (checker := shutil.which("shellcheck")) is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run([checker, SCRIPT, DEPLOY / "compose" / "store.sh"], check=True)


def test_the_job_is_queued_again_and_warned_before_its_end() -> None:
    directives = re.findall(r"^#SBATCH (\S+)", read("slurm/distill.sbatch"), re.MULTILINE)
    assert {"--requeue", "--exclusive", "--signal=B:TERM@120", "--open-mode=append"} <= set(
        directives
    )
    assert "--ntasks-per-node=1" in directives


def test_ray_starts_on_all_nodes_and_the_driver_joins_it(cluster: Cluster) -> None:
    code, err = cluster.run("run", "cda-in1k", "data.path=/data/in 1k", "--store", "s3://b/p")
    assert (code, err, cluster.requeued) == (0, "", False)
    job = int(cluster.environment["SLURM_JOB_ID"])
    address = f"192.0.2.7:{20000 + job % 10000}"
    (ray,) = cluster.calls("ray")
    assert f"symmetric-run --address {address} --min-nodes 2 --num-cpus=3 --num-gpus=1" in ray
    (driver,) = cluster.calls("distill")
    assert driver == (
        f"distill run cda-in1k data.path=/data/in 1k --store s3://b/p --ray-address {address}"
    )
    first, last = cluster.calls("srun")
    assert first.startswith("srun --nodes=2 --ntasks-per-node=1 --cpus-per-task=3 ray ")
    assert last.endswith(f"rm -rf /tmp/ray-{job}")
    assert not Path(f"/tmp/ray-{job}").exists()


@pytest.mark.parametrize(
    ("changes", "code", "requeued"),
    [
        ({"CODE": "1"}, 1, False),
        ({"CODE": "2"}, 2, False),
        ({"CODE": "75"}, 75, True),
        ({"CODE": "143"}, 143, True),
        ({"CODE": "75", "STATE": "CANCELLED"}, 75, False),
        ({"CODE": "75", "SLURM_RESTART_COUNT": "99"}, 75, True),
        ({"CODE": "75", "SLURM_RESTART_COUNT": "100"}, 75, False),
        ({"CODE": "75", "SLURM_RESTART_COUNT": "1", "DISTILL_MAX_RESTARTS": "1"}, 75, False),
        ({"NO_RAY": "1"}, 75, True),
    ],
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else None,
)
def test_the_exit_code_decides_whether_the_job_is_queued_again(
    cluster: Cluster, changes: dict[str, str], code: int, requeued: bool
) -> None:
    ended, err = cluster.run("run", "cda-in1k", **changes)
    assert (ended, cluster.requeued) == (code, requeued)
    assert ("Ray did not start on 2 nodes" in err) is ("NO_RAY" in changes)
    assert not requeued or "queued again" in err


def test_a_warning_stops_the_driver_and_queues_the_job_again(cluster: Cluster) -> None:
    process = cluster.start("run", "cda-in1k", HANGS="1")
    wait_until(lambda: cluster.calls("distill"), "the driver")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, cluster.requeued) == (143, True)
    assert "stopping the driver" in err


def test_without_slurm_it_ends_with_one_line(cluster: Cluster) -> None:
    code, err = cluster.run("run", "cda-in1k", SLURM_JOB_NUM_NODES="")
    assert code != 0
    assert "start this file with sbatch" in err
    assert cluster.calls("srun") == []


# `ray stop` ends every process of Ray that it sees, so it must not see those of other tests.
ALONE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
STOPPED_AND_QUEUED_AGAIN = """
stopped_when() {
  bash "$SCRIPT" "${@:2}" & script=$!
  until eval "$1"; do kill -0 $script || exit 9; sleep 0.1; done
  kill -TERM $script
  wait $script
  echo "ended with $?"
}
stopped_when '[ "$(ls "$DONE" 2>/dev/null | wc -l)" -ge 1 ]' "$@"
stopped_when '[ -e "$MANIFEST" ]' "$@"
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_a_job_that_is_stopped_and_queued_again_ends_with_equal_manifests(
    cluster: Cluster, tmp_path: Path
) -> None:
    if subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a namespace of processes of its own (unshare --pid)")
    reference, stages = tiny_run(tmp_path / "reference"), ("ingest", "squeeze", "recover")
    execute(reference, *stages)
    (cluster.bin / "ray").unlink()
    (cluster.bin / "distill").write_text(f'#!/bin/sh\nexec {sys.executable} -m flows.cli "$@"\n')
    programs = Path(sys.executable).parent
    store = tmp_path / "store"
    command = ("run", "digits-demo", *TINY, "--name", "stopped", "--store", str(store))
    ended = subprocess.run(
        [*ALONE, "bash", "-c", STOPPED_AND_QUEUED_AGAIN, "bash", *command, "--workers", "1"],
        env={
            **os.environ,
            **cluster.environment,
            "PATH": f"{cluster.bin}:{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "DONE": str(store / "recover" / "_done"),
            "MANIFEST": str(store / "runs" / "stopped" / "recover.manifest.json"),
            "SCRIPT": str(SCRIPT),
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_GPUS_ON_NODE": "0",
            "DISTILL_HEAD_IP": "127.0.0.1",
        },
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    codes = re.findall(r"^ended with (\d+)$", ended.stdout, re.MULTILINE)
    assert codes == ["143", "143"], ended.stdout + ended.stderr
    assert cluster.requeued
    assert re.search(r"recover: started, 4 shards, [1-3] done before", ended.stderr)
    run = open_run(Store(str(store)), "stopped")
    for stage in ("squeeze", "recover"):
        assert manifest(run, stage) == manifest(reference, stage)
