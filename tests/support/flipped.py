"""Single flipped bytes in every file of a finished store, and what `distill verify` finds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distill_core.errors import DataError
from distill_core.storage.records import seal_page
from distill_core.storage.store import Store
from flows.maintenance.verify import verify_run
from flows.progress.event_log import EventLog
from flows.reports.report import write_report
from tasks.execution import Execution
from tasks.pools.failures import Failure
from tasks.run import Run, open_run
from tasks.runs.failure_records import keep_failures
from tasks.runs.heartbeat import Heartbeat
from tasks.series import Version, claim
from tasks.stages.inputs import dataset_of
from tasks.stages.names import StageId
from tests.support.fabricate import finished_run


@dataclass(frozen=True)
class Flip:
    """One changed byte."""

    path: str
    position: int
    found: bool


def complete_store(folder: Path, url: str, *, previous: str | None = None) -> Run:
    """Return a finished run in a store that has a file of every kind a run leaves.

    Args:
        folder: for the run before it is copied.
        url: of the store.
        previous: dataset of the version before; by default that of the run.
    """
    run = finished_run(folder)
    write_report(run)
    run.store.put(run.path("diff.md"), seal_page("# a comparison"))
    claim(run, Version("earlier", previous or dataset_of(run), "keep", run.config))
    keep_failures(run, StageId("recover"), {"some": Failure(3, ValueError("poisoned"), "trace")})
    Heartbeat(run, Execution(store=run.store.url)).write()
    log = EventLog(run)
    log.stage_started("recover", 1, 0)
    log.flush()
    store = Store(url)
    for file in run.store.files(""):
        store.put(file.path, run.store.read(file.path))
    return open_run(store, run.name)


def flips(run: Run, below: str = "", *, every: int, seed: int = 0) -> Iterator[Flip]:
    """Flip bytes of every file, one at a time: about one in `every`, the first and the last one.

    Args:
        run: a finished run whose store holds nothing else.
        below: only files whose path begins with this.
        every: 1 for each byte of the store.
        seed: of the positions, and of which bits of a byte change.
    """
    rng, store = random.Random(seed), run.store
    for file in store.files(""):
        if not file.path.startswith(below):
            continue
        data = store.read(file.path)
        count = max(1, len(data) // every)
        for position in sorted({0, len(data) - 1, *rng.sample(range(len(data)), count)}):
            changed = bytearray(data)
            changed[position] ^= rng.randrange(1, 256)
            store.put(file.path, bytes(changed))
            yield Flip(file.path, position, _is_found(store, run.name))
        store.put(file.path, data)


def _is_found(store: Store, name: str) -> bool:
    """Return whether `distill verify` reports damage; a run that cannot be opened is reported."""
    try:
        return bool(verify_run(open_run(store, name)).damage)
    except DataError:
        return True
