"""A run with Prefect and Ray is hit by a signal in any of its phases, and nothing outlives it.

`python -m tests.soak.signals` does the same at random moments, and measures the times.
"""

from __future__ import annotations

from pathlib import Path
from signal import SIGABRT, SIGINT, SIGKILL, SIGTERM

import pytest

from distill_core.storage.store import Store
from tests.soak.signals import prepare
from tests.support.stopping import CODES, SMALL, Blow, Driver, damaged_shards

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

CTRL_C = Blow(SIGINT, group=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with dataset and teacher; the runs complete it one after another."""
    return prepare(tmp_path_factory.mktemp("signals"))


@pytest.mark.parametrize(
    ("sign", "blow"),
    [
        ("uvicorn", CTRL_C),
        ("uvicorn", Blow(SIGKILL)),
        ("gcs_server", Blow(SIGTERM)),
        ("raylet", CTRL_C),
        ("RecoverWorker", Blow(SIGKILL)),
        ("RecoverWorker", Blow(SIGABRT)),
        ("Worker", Blow(SIGINT, group=True, again=True)),
    ],
    ids=lambda value: str(value).replace(" ", "-"),
)
def test_a_run_that_is_hit_by_a_signal_leaves_no_process_and_no_partial_shard(
    store: Path, sign: str, blow: Blow
) -> None:
    home = store.parent / "home"  # the first run finds no database of Prefect, the others do
    driver = Driver(["run", *SMALL, "--store", str(store), "--workers", "2"], home)
    try:
        driver.follow(lambda: sign in " ".join(driver.family.values()))
        ending = driver.hit(blow)
    finally:
        driver.kill()
    assert ending.code in CODES[blow.number], ending.output
    assert ending.leftovers == ()
    assert damaged_shards(Store(str(store))) == []
    if blow.number not in (SIGKILL, SIGABRT):
        (line,) = (line for line in ending.output.splitlines() if "distill resume" in line)
        assert line.startswith(f"distill: {blow.number.name}: ")
    assert "Traceback" not in ending.output
