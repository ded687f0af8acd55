"""The record of a run's dataset: ``runs/<name>/ingest.json``, written when it is ingested."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ConfigDict, TypeAdapter

from distill_core.data.index import DatasetIndex
from distill_core.data.labels.words import find_words
from distill_core.errors import DataError
from distill_core.storage.records import parse_json, seal_json
from tasks.run import Run
from tasks.stages.class_names import record_class_names

FILE = "ingest.json"
REMEDY = "Delete it and run `distill resume`, which ingests the dataset again."


@dataclass(frozen=True)
class DatasetRecord:
    """The dataset that a run has."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    dataset: str  # its id
    test_images: int | None = None  # readable images of the test split
    run: str = ""  # older versions have neither the run nor the digest
    record_sha256: str = ""


_RECORD: TypeAdapter[DatasetRecord] = TypeAdapter(DatasetRecord)


def record_dataset(run: Run, index: DatasetIndex) -> None:
    """Declare the ingest stage of a run done, after the readable names of its classes."""
    names = find_words(run.config.data, index.class_names)
    if names.words:
        record_class_names(run, names)
    facts = {"run": run.name, "dataset": index.id, "test_images": index.count_readable("test")}
    run.store.put(run.path(FILE), seal_json(facts))


def read_dataset_record(run: Run) -> DatasetRecord | None:
    """Return the dataset of a run, or None before it is ingested.

    Raises:
        DataError: the record is damaged, or belongs to another run.
    """
    path = run.path(FILE)
    if not run.store.exists(path):
        return None
    where = run.store.uri(path)
    record = parse_json(
        _RECORD,
        run.store.read(path),
        where=where,
        what="the record of a dataset",
        remedy=REMEDY,
        sealed=run.sealed,
    )
    if record.run not in ("", run.name):
        raise DataError(f"{where}: belongs to run {record.run!r}, expected {run.name!r}. {REMEDY}")
    return record
