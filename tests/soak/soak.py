"""The soak: 219 shards on dying and sick actors, a failing store, and drivers that are killed.

What is random is drawn from a seed: which attempt dies where, which worker process cannot reach
the store or lacks the data until it is restarted, which request fails how, how long the store is
away, and after how many shards a driver is killed. When work is done in which order is not.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.s3_server import served
from distill_core.storage.shard_store import ShardStore
from flows.maintenance.verify import verify_run
from tasks.run import Run
from tests.support.fault_proxy import FaultProxy
from tests.support.fault_runs import markers_of, planned_run, recover, start_driver
from tests.support.pipeline import manifest
from tests.support.stand_in import ORDERS, SICKNESSES, Notebook, Orders

SHARDS = 219  # as many as 21,841 classes have
WORKERS = 4
MAX_PASSES = 30
DRIVER_SECONDS = 1800.0
POLL_SECONDS = 0.5
THERE_SECONDS = (30.0, 90.0)  # between two outages of the store
AWAY_SECONDS = (10.0, 60.0)  # an outage of the store at a rate of 1
EXPECTED_ERRORS = (
    *("ShardsFailed", "ShardsPostponed", "StorageError", "ClusterError"),
    *("StorageRefused", "MissingDataError"),  # all workers were sick at once
)


@dataclass
class Facts:
    """The results of a soak."""

    rate: float
    seed: int
    shards: int = SHARDS
    attempts: int = 0
    deaths: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    spoiled: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)  # attempts of sick workers
    outages: list[float] = field(default_factory=list)  # of the store, in seconds
    endings: list[str] = field(default_factory=list)  # of each driver, in order
    seconds: float = 0.0
    bytes: int = 0


def soak(folder: Path, *, rate: float, seed: int = 0, driver_kills: int = 1) -> Facts:
    """Run drivers until there is a manifest, and compare it with that of an undisturbed run.

    Args:
        folder: an empty one, for orders and notes.
        rate: share of attempts whose process dies, and of requests that the store spoils. Half as
            many worker processes are sick, and the store is away for half as much of the time.
        seed: of all draws.
        driver_kills: how many drivers are killed before one may finish.

    Raises:
        AssertionError: the promise does not hold.
    """
    facts, notebook = Facts(rate, seed), Notebook(folder / "orders")
    notebook.folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch, served() as (bucket, _):
        patch.setenv(ORDERS, str(notebook.orders))
        notebook.order(Orders())
        undisturbed = planned_run(str(folder / "undisturbed"), shards=SHARDS)
        recover(undisturbed, local=True)
        notebook.forget()
        run = planned_run(f"{bucket}/soak", shards=SHARDS)
        notebook.order(Orders(rate=rate, seed=seed, sick=rate / 2))
        began = time.monotonic()
        upstream = os.environ["AWS_ENDPOINT_URL"]
        with (
            FaultProxy(upstream, rate=rate, seed=seed) as proxy,
            away_at_times(proxy, facts, random.Random(f"{seed} outages")),
        ):
            facts.endings = list(drive(run, proxy, folder, driver_kills, random.Random(seed)))
        facts.seconds = time.monotonic() - began
        assert manifest(run, "recover") == manifest(undisturbed, "recover")
        facts.bytes = rehash(run)
    facts.attempts = sum(map(len, notebook.attempts().values()))
    facts.deaths = notebook.deaths()
    tries = [attempt.fate for each in notebook.attempts().values() for attempt in each]
    facts.refused = Counter(fate.split()[1] for fate in tries if fate in SICKNESSES)
    facts.requests = len(proxy.requests)
    facts.spoiled = Counter(seen.fault for seen in proxy.requests if seen.fault)
    return facts


def drive(
    run: Run, proxy: FaultProxy, folder: Path, kills: int, rng: random.Random
) -> Iterator[str]:
    """Start one driver after another until one completes the run; yield how each ended."""
    shard_store, tokens = ShardStore(run.store, "recover"), dict[str, str]()
    for number in range(MAX_PASSES):
        log = folder / f"driver-{number}.log"
        quota = len(shard_store.done()) + rng.randrange(5, SHARDS // (kills + 1)) if kills else None
        with log.open("wb") as stream, through(proxy):
            driver = start_driver(run, output=stream, workers=WORKERS, num_cpus=0.5)
        ending = end(driver, shard_store, quota, log)
        tokens, before = {m.key: m.token for m in markers_of(shard_store)}, tokens
        assert before.items() <= tokens.items(), "a shard that was done was lost or made again"
        yield ending
        kills -= ending == "killed"
        if ending == "done":
            return
    raise AssertionError(f"not done after {MAX_PASSES} drivers")


def end(
    driver: subprocess.Popen[bytes], shard_store: ShardStore, quota: int | None, log: Path
) -> str:
    """Wait for a driver, or kill it after a number of shards; return how it ended."""
    deadline = time.monotonic() + DRIVER_SECONDS
    while driver.poll() is None:
        assert time.monotonic() < deadline, f"a driver takes more than {DRIVER_SECONDS} s"
        if quota is not None and len(shard_store.done()) >= quota:
            driver.kill()
            driver.wait()
            return "killed"
        time.sleep(POLL_SECONDS)
    if driver.returncode == 0:
        return "done"
    errors: list[str] = re.findall(r"^distill_core\.errors\.(\w+):", log.read_text(), re.MULTILINE)
    assert errors, log.read_text()
    assert errors[-1] in EXPECTED_ERRORS, log.read_text()
    return errors[-1]


@contextmanager
def away_at_times(proxy: FaultProxy, facts: Facts, rng: random.Random) -> Iterator[None]:
    """Take the store away for some seconds every now and then, until the block ends."""
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.wait(rng.uniform(*THERE_SECONDS)):
            seconds = facts.rate * rng.uniform(*AWAY_SECONDS)
            facts.outages.append(seconds)
            with proxy.outage():
                ended.wait(seconds)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def through(proxy: FaultProxy) -> Iterator[None]:
    """Let processes that are started in the block reach the store through a proxy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield


def rehash(run: Run) -> int:
    """Read and hash every file again; return how many bytes there are.

    Raises:
        AssertionError: a file differs from its marker.
    """
    verdict = verify_run(run)
    assert not verdict.damage, verdict.damage
    assert verdict.shards >= SHARDS
    return verdict.bytes
