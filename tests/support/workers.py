"""A worker that commits small files at once, in the place of the worker of any stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import pytest

from distill_core.storage.markers import ShardFacts
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.jobs import Job, Receipt
from tasks.stages.finished import receipt
from tasks.stages.table import STAGES


class Committing:
    """Commits each shard in this process, and notes its name; see `committing`."""

    stage: ClassVar[str]
    ran: ClassVar[list[str]]
    before: ClassVar[Callable[[Job], object]]  # called with each job

    def __init__(self, *, store: str, **context: object) -> None:
        self._shards = ShardStore(Store(store), self.stage)

    def run(self, job: Job) -> Receipt:
        """Commit a shard."""
        type(self).before(job)
        self.ran.append(job.shard)
        marker = self._shards.commit(
            job.key,
            shard=job.shard,
            files={"safetensors": b"weights", "json": b"{}"},
            facts=ShardFacts(rows=1, classes=1, seconds=0.0, device="cpu"),
        )
        return receipt(marker, won=True)


@contextmanager
def committing(
    stage: str, before: Callable[[Job], object] = lambda job: None
) -> Iterator[type[Committing]]:
    """Let a stage use this worker during a block.

    Args:
        stage: its kind.
        before: called with each job before it is committed.
    """
    Committing.stage, Committing.ran, Committing.before = stage, [], staticmethod(before)
    with pytest.MonkeyPatch.context() as patch:
        worker = f"{__name__}:{Committing.__name__}"
        patch.setitem(STAGES, stage, replace(STAGES[stage], worker=worker))
        yield Committing
