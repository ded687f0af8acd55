"""Every pass over a run first checks that its store has conditional create."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.errors import StorageError
from distill_core.storage.backends import LocalBackend
from flows.runs.pipeline import complete_run
from tasks.execution import Execution
from tests.support.pipeline import tiny_run


def overwrite(self: LocalBackend, path: str, data: bytes) -> bool:
    """Create an object whether there is one or not, as careless stores do."""
    self.put(path, data)
    return True


def test_a_resume_is_refused_where_an_object_can_be_created_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(tmp_path)
    monkeypatch.setattr(LocalBackend, "create", overwrite)
    with pytest.raises(StorageError, match="does not refuse to create the same object twice"):
        complete_run(run, Execution(store=run.store.url, local=True))
    assert not run.store.exists(run.path("ingest.json"))
