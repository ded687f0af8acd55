"""A run that is cancelled, killed and cut off from the API in turn leaves no partial work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from tests.support.pipeline import TINY
from tests.support.prefect_server import Operator, Server, processes_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

# Shards that are long enough to be hit in the middle; the rest is as short as can be.
LONG = (*TINY, "ipc=8", 'posttrain.sets=["distilled"]')
STOP_SECONDS = 30  # ten are promised; a busy machine may take longer


def long_run(name: str, steps: int) -> tuple[str, ...]:
    """Return the arguments of a run with shards of its own."""
    return ("digits-demo", *LONG, f"recover.steps={steps}", "--name", name)


def markers(store: Path) -> Mapping[Path, int]:
    """Return the markers of recover in a store, and when each was made."""
    done = store / "recover" / "_done"
    return {path: path.stat().st_mtime_ns for path in done.glob("*.json")}


def wait_for_more(store: Path, than: Mapping[Path, int]) -> Mapping[Path, int]:
    """Wait until another shard is committed."""
    wait_until(lambda: len(markers(store)) > len(than), "a shard")
    return markers(store)


def assert_whole(operator: Operator, store: Path, name: str, survivors: Mapping[Path, int]) -> None:
    """Check that committed files are unchanged and equal to their markers."""
    now = markers(store)
    assert {path: now[path] for path in survivors} == survivors
    assert len(now) > len(survivors), "nothing was left to do: the blow came too late"
    assert "verified" in operator.distill("verify", name, "--store", str(store))


def test_a_cancelled_run_stops_its_actors_and_is_resumed_by_a_deployment(
    operator: Operator, store: Path
) -> None:
    before = markers(store)
    run = operator.trigger(*long_run("cancelled", 81), "--workers", "2")
    wait_for_more(store, before)
    assert len(processes_of(run)) > 2  # the driver, Ray, its actors
    operator.cancel(run)
    wait_until(lambda: not processes_of(run), "the actors' end", STOP_SECONDS)
    assert operator.end_of(run)["type"] == "CANCELLED"

    survivors = markers(store)
    again = operator.trigger("--resume", "cancelled", "--local")
    assert operator.end_of(again)["type"] == "COMPLETED"
    assert_whole(operator, store, "cancelled", survivors)


def test_a_killed_driver_is_marked_crashed_and_the_next_run_starts(
    operator: Operator, store: Path
) -> None:
    before = markers(store)
    pair = [operator.trigger(*long_run("killed", 82), "--local") for _ in range(2)]

    def waits(run: str) -> bool:
        return bool(operator.state(run)["name"] == "AwaitingConcurrencySlot")

    wait_for_more(store, before)
    wait_until(lambda: any(map(waits, pair)), "one to wait its turn")
    run, waiting = sorted(pair, key=waits)  # either may be the first
    for process in processes_of(run):
        process.kill()
    state = operator.end_of(run)
    assert state["type"] == "CRASHED"
    assert "SIGKILL" in state["message"]

    survivors = markers(store)
    assert operator.end_of(waiting)["type"] == "COMPLETED"
    assert_whole(operator, store, "killed", survivors)


def test_a_run_survives_a_temporary_loss_of_the_server(
    operator: Operator, server: Server, store: Path
) -> None:
    run = operator.trigger(*long_run("cut-off", 83), "--local")
    before = wait_for_more(store, markers(store))
    server.stop()
    try:
        wait_for_more(store, before)
    finally:
        server.start()
    assert operator.end_of(run)["type"] == "COMPLETED"
    assert_whole(operator, store, "cut-off", before)


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("number", "group", "code", "steps"),
    [(signal.SIGTERM, False, 143, 84), (signal.SIGINT, True, 130, 85)],
    ids=["SIGTERM to the driver", "Ctrl-C in a terminal"],
)
def test_a_signal_ends_a_run_and_every_process_it_started(
    operator: Operator,
    store: Path,
    number: signal.Signals,
    group: bool,
    code: int,
    steps: int,
) -> None:
    before = markers(store)
    command = [sys.executable, "-m", "flows.cli", "run", *long_run(f"signalled-{code}", steps)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_API")}
    process = subprocess.Popen(
        [*command, "--store", str(store), "--workers", "2"], env=environment, start_new_session=True
    )
    try:
        wait_for_more(store, before)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) > 2  # Prefect's temporary server, Ray, its actors
        (os.killpg if group else os.kill)(process.pid, number)
        assert process.wait(STOP_SECONDS) == code
        assert psutil.wait_procs(family, STOP_SECONDS)[1] == []
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
