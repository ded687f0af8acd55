"""The records of shards that used up their attempts: ``runs/<name>/failed/<stage>.<shard>.json``.

A marker that is created later takes precedence over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from distill_core.storage.records import parse_json, seal_json
from tasks.pools.failures import Failure
from tasks.run import Run
from tasks.stages.names import StageId

REMEDY = "Delete it; `distill resume` tries the shard again."


@dataclass(frozen=True)
class _Stored:
    """A failure as it is stored."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    stage: str
    shard: str
    attempts: int
    error: str
    type: str
    traceback: str
    record_sha256: str = ""  # records of older versions have none


_STORED: TypeAdapter[_Stored] = TypeAdapter(_Stored)


def keep_failures(run: Run, stage: StageId, failed: Mapping[str, Failure]) -> None:
    """Record why shards were given up."""
    for shard, failure in failed.items():
        record = {"stage": str(stage), "shard": shard, **failure.to_dict()}
        run.store.put(run.path("failed", f"{stage}.{shard}.json"), seal_json(record))


def failures(run: Run, stage: StageId) -> dict[str, dict[str, Any]]:
    """Return the records of shards that used up their attempts; some may be done since.

    Raises:
        DataError: a record is damaged.
    """
    prefix = f"{stage}."
    names = [n for n in run.store.names(run.path("failed")) if n.startswith(prefix)]
    records = (_read(run, run.path("failed", name)) for name in names)
    return {record.shard: asdict(record) for record in records}


def _read(run: Run, path: str) -> _Stored:
    where = run.store.uri(path)
    return parse_json(
        _STORED, run.store.read(path), where=where, what="the record of a failure", remedy=REMEDY
    )
