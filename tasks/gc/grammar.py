"""The names of all objects that this project writes to a store.

The collection deletes nothing else: an object without such a name belongs to somebody else and is
reported as foreign. A test asserts that every object that runs write has one of these names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from distill_core.storage import identity
from distill_core.storage.object_names import (
    POINTER,
    checkpoint_attempt,
    data_attempt,
    final_path,
    is_checkpoint_file,
    is_random,
    marker_key,
)
from distill_core.storage.store import PROBES
from tasks.stages.table import sharded_kinds

DATASETS = "datasets"
DESCRIPTION = "index.json"
RUNS = "runs"
SCHEDULES = "schedules"
Role = Literal["marker", "data", "checkpoint", "dataset", "probe", "record", "identity"]

_STAGE = r"[a-z_]+(?:-[1-9]\d*)?"
_RECORDS = (
    r"run\.yaml",
    r"version\.json",
    r"ingest\.json",
    r"class_names\.json",
    rf"{_STAGE}(?:\.random_real)?\.manifest\.json",
    rf"failed/{_STAGE}\..+\.json",
    r"drivers/[0-9a-f]{8}\.json",
    r"events/[0-9a-f]{8}-\d{4,}\.jsonl",
    r"report/(index\.html|images\.png)",
    r"diff\.(?:json|md)",
    r"source\.json",
)
_RUN_RECORD = re.compile(rf"{RUNS}/[^/]+/(?:{'|'.join(_RECORDS)})")
_SCHEDULE = re.compile(rf"{SCHEDULES}/[^/]+/[^/]+\.yaml")
_DATASET = re.compile(
    rf"{DATASETS}/([a-z0-9][a-z0-9_-]*-[0-9a-f]{{12}})/"
    rf"(?:{re.escape(DESCRIPTION)}|index/(?:train|test)-[0-9a-f]{{16}}\.parquet)"
)


@dataclass(frozen=True)
class Name:
    """The meaning of a path."""

    role: Role
    owner: str = ""  # key of a shard, or id of a dataset
    token: str = ""  # of the execution that wrote it
    entry: bool = False  # makes the other objects of its owner reachable


def recognise(path: str) -> Name | None:
    """Return the meaning of a path relative to the store; None if it is not one of ours."""
    folder, _, rest = path.partition("/")
    if folder in sharded_kinds():
        return _of_shard(rest)
    if match := _DATASET.fullmatch(path):
        return Name("dataset", match[1], entry=path.count("/") == 2)
    if folder == PROBES and is_random(rest):
        return Name("probe")
    if _RUN_RECORD.fullmatch(path) or _SCHEDULE.fullmatch(path):
        return Name("record")
    return Name("identity") if path == identity.PATH else None


def recognise_unfinished(path: str) -> Name | None:
    """Return the meaning of the object that an unfinished write was meant for; None if foreign."""
    final = final_path(path)
    return None if final is None else recognise(final)


def _of_shard(path: str) -> Name | None:
    """Return the meaning of a path below the folder of a stage."""
    match path.split("/"):
        case ["_done", name] if key := marker_key(name):
            return Name("marker", key, entry=True)
        case ["data", name] if attempt := data_attempt(name):
            return Name("data", *attempt)
        case ["checkpoints", parent, name] if attempt := checkpoint_attempt(parent):
            if is_checkpoint_file(name):
                return Name("checkpoint", *attempt, entry=name == POINTER)
    return None
