"""Workers without Ray: in this process, and in spawned children."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from distill_core.errors import ConfigError
from distill_core.machine_share import WORKERS
from tasks.execution import Execution, RetryPolicy
from tasks.jobs import Job, Receipt, WorkerSpec
from tasks.pools.dispatch import dispatch
from tasks.pools.events import Pool
from tasks.pools.failures import DispatchResult
from tasks.pools.host import Host
from tasks.pools.local import InProcessPool, local_pool
from tasks.pools.provider import PoolProvider
from tests.support.fakes import make_jobs
from tests.support.notes import Notes

FAKE = "tests.support.fakes:FakeWorker"
IMPORTS = """
from tasks.execution import Execution
from tasks.jobs import WorkerSpec
from tasks.pools.dispatch import dispatch
from tasks.pools.local import local_pool
from tasks.pools.provider import PoolProvider
from tests.support.fakes import make_jobs
"""


@contextmanager
def opened(pool: Pool) -> Iterator[Pool]:
    """Close a pool at the end of a block."""
    try:
        yield pool
    finally:
        pool.close()


def run(pool: Pool, jobs: list[Job], notes: Notes | None = None, **policy: float) -> DispatchResult:
    """Dispatch and close."""
    chosen = RetryPolicy(**policy)  # type: ignore[arg-type]
    with opened(pool):
        return dispatch(jobs, pool, policy=chosen, observer=notes)


def pids(result: DispatchResult) -> set[int]:
    """Return the processes that did the jobs."""
    return {receipt.summary["pid"] for receipt in result.receipts}


def test_one_local_worker_runs_in_this_process() -> None:
    result = run(local_pool(WorkerSpec(FAKE)), make_jobs(3))
    assert pids(result) == {os.getpid()}
    assert len(result.receipts) == 3


def test_a_worker_is_built_once_for_all_its_jobs(tmp_path: Path) -> None:
    pool = InProcessPool(WorkerSpec(FAKE, {"log": str(tmp_path / "log")}))
    run(pool, make_jobs(3))
    assert (tmp_path / "log").read_text().split()[::2] == ["s0", "s1", "s2"]


def test_a_job_in_this_process_shows_progress_while_it_runs() -> None:
    notes = Notes()
    run(InProcessPool(WorkerSpec(FAKE), sample_seconds=0.01), make_jobs(1, seconds=0.5), notes)
    assert len(notes.progress) > 1
    assert {(shard, total) for shard, _, total in notes.progress} == {("s0", 10)}


def test_an_exception_in_this_process_keeps_its_type_and_traceback() -> None:
    jobs = [*make_jobs(2), Job("k9", "s9", {"error": "DataError"})]
    result = run(local_pool(WorkerSpec(FAKE)), jobs)
    assert result.failed["s9"].attempts == 3
    assert str(result.failed["s9"].error) == "s9 is poisoned"
    assert "in mischief" in result.failed["s9"].traceback
    assert len(result.receipts) == 2


def test_ctrl_c_in_this_process_is_not_a_failed_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(host: Host, job: Job) -> Receipt:
        raise KeyboardInterrupt

    monkeypatch.setattr(Host, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(local_pool(WorkerSpec(FAKE)), make_jobs(1))


def test_a_worker_that_cannot_be_built_raises_its_own_error_from_a_child_too() -> None:
    spec = WorkerSpec(FAKE, {"broken": "ConfigError"})
    for workers in (1, 2):
        with pytest.raises(ConfigError, match="cannot be built") as raised:
            run(local_pool(spec, workers=workers), make_jobs(2))
        assert "make_error" in str(raised.value.__cause__)


def test_children_share_the_jobs_and_end_with_the_pool() -> None:
    notes = Notes()
    result = run(local_pool(WorkerSpec(FAKE), workers=2), make_jobs(4, seconds=1.2), notes)
    assert len(result.receipts) == 4
    assert len(pids(result) - {os.getpid()}) == 2
    assert {receipt.summary[WORKERS] for receipt in result.receipts} == {"2"}
    assert notes.progress
    assert not any(psutil.pid_exists(pid) for pid in pids(result))


def test_a_child_that_raises_dies_or_hangs_takes_no_other_job_with_it(tmp_path: Path) -> None:
    jobs = [
        Job("k0", "dies", {"die": True, "once": str(tmp_path / "died")}),
        Job("k0", "crashes", {"die": True, "signal": 11, "once": str(tmp_path / "crashed")}),
        Job("k1", "raises", {"error": "DivergedError"}),
        Job("k2", "hangs", {"hang": 600, "once": str(tmp_path / "hung")}),
        *make_jobs(4),
    ]
    jobs = [Job(f"{job.key}-{job.shard}", job.shard, job.payload) for job in jobs]
    notes = Notes()
    result = run(local_pool(WorkerSpec(FAKE), workers=2), jobs, notes, job_timeout_seconds=3)
    assert sorted(notes.finished) == ["crashes", "dies", "hangs", "s0", "s1", "s2", "s3"]
    assert list(result.failed) == ["raises"]
    reasons = dict(notes.retried)
    assert re.search(r"ended with SIGKILL \(.*`dmesg`.*\)\.", reasons["dies"])
    assert re.search(r"ended with SIGSEGV \(.*`distill doctor`\)\.", reasons["crashes"])
    assert "ran for more than 3 s" in reasons["hangs"]


def test_a_local_gang_computes_together_and_its_first_rank_answers() -> None:
    notes = Notes()
    jobs = [*make_jobs(1, seconds=1), Job("k9", "s9", {"error": "DivergedError"})]
    with PoolProvider(Execution(store=".", local=True)) as pools:
        spec = WorkerSpec("tests.support.fakes:GangWorker")
        result = pools.gang(spec, jobs, processes=2, stage="squeeze", observer=notes)
    assert [receipt.summary["sum"] for receipt in result.receipts] == [3.0]
    assert [receipt.summary["rank"] for receipt in result.receipts] == [0]
    assert [receipt.summary[WORKERS] for receipt in result.receipts] == ["2"]
    assert str(result.failed["s9"].error) == "s9 is poisoned"
    assert ("s0", 1, 2) in notes.progress


def test_a_driver_that_is_killed_leaves_no_busy_child_behind(tmp_path: Path) -> None:
    script = (
        f"{IMPORTS}"
        "if __name__ == '__main__':\n"
        f"    spec = WorkerSpec({FAKE!r}, {{'log': {str(tmp_path / 'log')!r}}})\n"
        "    dispatch(make_jobs(2, hang=600), local_pool(spec, workers=2))\n"
    )
    (tmp_path / "drive.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    driver = subprocess.Popen([sys.executable, str(tmp_path / "drive.py")], env=environment)
    busy = wait_for_lines(tmp_path / "log", 2)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    wait_until_gone(busy)


def test_sigterm_stops_the_children_before_the_driver_ends(tmp_path: Path) -> None:
    script = (
        f"{IMPORTS}"
        "if __name__ == '__main__':\n"
        f"    spec = WorkerSpec({FAKE!r}, {{'log': {str(tmp_path / 'log')!r}}})\n"
        "    with PoolProvider(Execution(store='.', local=True, workers=2)) as pools:\n"
        "        dispatch(make_jobs(2, hang=600), pools.pool(spec, jobs=2))\n"
    )
    (tmp_path / "drive.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    driver = subprocess.Popen([sys.executable, str(tmp_path / "drive.py")], env=environment)
    busy = wait_for_lines(tmp_path / "log", 2)
    driver.terminate()
    assert driver.wait(60) == 128 + signal.SIGTERM
    assert not any(psutil.pid_exists(pid) for pid in busy)


def test_a_provider_stops_one_pool_before_it_starts_the_next() -> None:
    with PoolProvider(Execution(store=".", local=True, workers=2)) as pools:
        first = pools.pool(WorkerSpec(FAKE), jobs=5)
        assert first.workers == 2
        children = [child.pid for child in psutil.Process().children()]
        second = pools.pool(WorkerSpec(FAKE), jobs=1)
        assert second.workers == 1
        assert first.describe().startswith("0 of")
    assert not any(psutil.pid_exists(pid) for pid in children if is_worker(pid))


def test_a_receipt_stays_small_whatever_summary_the_worker_returns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host(WorkerSpec("tests.support.fakes:Talkative"))
    receipt = host.run(make_jobs(1)[0])
    assert receipt.rows == 5
    assert receipt.summary == {}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"num_gpus": 0.3}, "cannot pack other fractions"),
        ({"num_gpus": 0, "device": "cuda"}, "must reserve a part of a GPU"),
        ({"workers": 0}, "expected a number from 1"),
        ({"worker": 2}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_work_are_refused(said: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Execution.model_validate({"store": ".", **said})


def test_the_gpus_of_a_worker_follow_its_device() -> None:
    assert Execution(store=".").gpus == 0
    assert Execution(store=".", device="cuda").gpus == 1
    assert Execution(store=".", device="cuda", num_gpus=0.5).gpus == 0.5
    settings = Execution(store=".", device="cuda")
    assert Execution.model_validate(settings.model_dump(mode="json")) == settings


def is_worker(pid: int) -> bool:
    """Return whether a process is a spawned worker and not the resource tracker."""
    return psutil.pid_exists(pid) and "spawn_main" in " ".join(psutil.Process(pid).cmdline())


def wait_for_lines(log: Path, count: int) -> list[int]:
    """Wait until that many jobs have begun; return the processes that they are in."""
    for _ in range(600):
        if log.exists() and len(lines := log.read_text().splitlines()) >= count:
            return [int(line.split()[1]) for line in lines]
        time.sleep(0.1)
    raise AssertionError("the jobs did not begin")


def wait_until_gone(processes: list[int]) -> None:
    """Wait until none of the processes is there any more."""
    for _ in range(300):
        if not any(psutil.pid_exists(pid) for pid in processes):
            return
        time.sleep(0.1)
    raise AssertionError("the children outlived their parent")
