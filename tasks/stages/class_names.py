"""The record of the readable names of a run's classes: ``runs/<name>/class_names.json``.

It serves people alone: without it, and if it is damaged, reports show the ids of classes.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from pydantic import TypeAdapter

from distill_core.errors import DataError
from distill_core.label_spaces.words import ClassWords
from distill_core.storage.records import parse_json, seal_json
from tasks.run import Run

FILE = "class_names.json"


@dataclass(frozen=True)
class _Record:
    run: str
    words: dict[str, str]  # by id of the class
    record_sha256: str


_RECORD: TypeAdapter[_Record] = TypeAdapter(_Record)


def record_class_names(run: Run, names: ClassWords) -> None:
    """Write the readable names of a run's classes down."""
    run.store.put(run.path(FILE), seal_json({"run": run.name, "words": dict(names.words)}))


def read_class_names(run: Run) -> ClassWords:
    """Return the readable names of a run's classes; none of them if they are not recorded."""
    path = run.path(FILE)
    with suppress(DataError):
        if run.store.exists(path):
            data, where = run.store.read(path), run.store.uri(path)
            record = parse_json(
                _RECORD, data, where=where, what="names of classes", remedy="Delete it."
            )
            return ClassWords(record.words)
    return ClassWords({})
