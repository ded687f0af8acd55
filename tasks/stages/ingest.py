"""The first stage: read, check and index the images; write down which dataset a run has."""

from __future__ import annotations

import time

from distill_core.config.data import DataConfig
from distill_core.data.index import DatasetIndex
from distill_core.data.ingest import ingest
from distill_core.storage.store import Store
from tasks.jobs import Receipt
from tasks.observer import Observer
from tasks.run import Run
from tasks.series import previous_index
from tasks.stages.dataset_record import record_dataset


def run_ingest(run: Run, observer: Observer) -> None:
    """Index the dataset of a run; a version of a series keeps the class ids of the one before."""
    config = run.config.data
    record_dataset(run, ingest_observed(config, run.store, previous_index(run), observer))


def ingest_observed(
    config: DataConfig, store: Store, previous: DatasetIndex | None, observer: Observer
) -> DatasetIndex:
    """Index a dataset, and tell somebody how far it is; see `distill_core.data.ingest.ingest`."""
    started = time.monotonic()
    observer.stage_started("ingest", 1, 0)
    observer.job_started("ingest", config.name)

    def progress(done: int, total: int) -> None:
        observer.job_progress("ingest", config.name, done, total)

    def notice(text: str) -> None:
        observer.stage_notice("ingest", text)

    index = ingest(config, store, previous, progress=progress, notice=notice)
    rows = index.train.num_rows + index.test.num_rows
    seconds = time.monotonic() - started
    observer.job_finished("ingest", Receipt(index.id, config.name, seconds=seconds, rows=rows))
    observer.stage_finished("ingest", seconds)
    return index
