"""A driver that dies between the last commit and the manifest: resuming writes the manifest."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distill_core.storage.manifest import Manifest, load_manifest
from distill_core.storage.shard_store import ShardStore
from tasks.run import Run
from tasks.runs import finalise
from tasks.runs.stage_status import stage_status
from tasks.stages.names import StageId
from tests.support.fault_runs import SHARDS, planned_run, recover
from tests.support.pipeline import manifest
from tests.support.stand_in import Notebook, Orders

WAIT_SECONDS = 180
DIES_LAST = """
import os, signal, sys
from distill_core.storage.store import Store
from tasks.runs import finalise
from tasks.run import open_run
from tests.support.fault_runs import recover

finalise.save_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
recover(open_run(Store(sys.argv[1]), sys.argv[2]), local=True)
"""


@pytest.fixture
def run(notebook: Notebook, tmp_path: Path) -> Run:
    """Return a run up to and without its recover stage; nothing is ordered or noted."""
    notebook.order(Orders())
    made = planned_run(str(tmp_path), shards=SHARDS)
    notebook.forget()
    return made


def resume(run: Run, notebook: Notebook, undisturbed: Manifest) -> None:
    """Resume a run whose shards are all committed; none may run again."""
    assert len(ShardStore(run.store, "recover").done()) == SHARDS
    assert load_manifest(run.store, run.name, "recover") is None
    notebook.forget()
    recover(run, local=True)
    assert notebook.attempts() == {}
    assert manifest(run, "recover") == undisturbed
    assert stage_status(run, StageId("recover")).complete


def test_a_driver_killed_before_the_manifest_leaves_it_to_the_next_one(
    run: Run, notebook: Notebook, undisturbed: Manifest
) -> None:
    command = [sys.executable, "-c", DIES_LAST, run.store.url, run.name]
    killed = subprocess.run(command, timeout=WAIT_SECONDS, check=False)
    assert killed.returncode == -signal.SIGKILL
    resume(run, notebook, undisturbed)


def test_a_driver_interrupted_before_the_manifest_leaves_it_to_the_next_one(
    run: Run, notebook: Notebook, undisturbed: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finalise, "save_manifest", interrupt)
        with pytest.raises(KeyboardInterrupt):
            recover(run, local=True)
    resume(run, notebook, undisturbed)
