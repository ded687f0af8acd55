"""Versions of a series: runs ``<series>-v0001``, ``-v0002``, each made from the previous one.

The origin of a version is stored beside its run.yaml, in ``version.json``; it is part of no key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from distill_core.config.load import validate_run
from distill_core.config.schema import RunConfig
from distill_core.data.index import DatasetIndex
from distill_core.data.index_files import open_index
from distill_core.errors import ConfigError
from distill_core.naming.names import check_name
from distill_core.storage.records import parse_json, seal_json
from distill_core.storage.store import Store
from tasks.policy import TeacherPolicy
from tasks.run import Run, read_run

FILE = "version.json"
REMEDY = "Delete the run's folder and run `distill redistill` again; its shards are kept."


@dataclass(frozen=True)
class Version:
    """The origin of a version."""

    previous: str  # the complete run before it, by name
    dataset: str  # of that run, whose class ids are kept
    policy: TeacherPolicy  # for that run's teacher
    requested: RunConfig  # the run's own config adds the origin of the teacher

    def to_json(self) -> bytes:
        """Return the version as it is stored."""
        tree = {
            "previous": self.previous,
            "dataset": self.dataset,
            "policy": self.policy,
            "asked": self.requested.model_dump(mode="json"),
        }
        return seal_json(tree)

    @classmethod
    def from_json(cls, data: bytes, *, where: str, sealed: bool = False) -> Version:
        """Read a stored version.

        Args:
            data: the whole record.
            where: its address, for messages.
            sealed: whether it must have a digest, since its run has one.

        Raises:
            DataError: the data is not a version, or was changed since it was written.
        """
        stored = parse_json(
            _STORED, data, where=where, what="a version record", remedy=REMEDY, sealed=sealed
        )
        requested = validate_run(stored.asked, where=where)
        return cls(stored.previous, stored.dataset, stored.policy, requested)


@dataclass(frozen=True)
class _Stored:
    """A version as it is stored."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    previous: str
    dataset: str
    policy: TeacherPolicy
    asked: dict[str, Any]
    record_sha256: str = ""  # versions of older releases have none


_STORED: TypeAdapter[_Stored] = TypeAdapter(_Stored)


def versions_of(store: Store, series: str) -> tuple[Run, ...]:
    """Return the registered runs of a series, oldest first.

    Raises:
        ConfigError: the name of the series cannot be part of a run's name.
    """
    check_name("series", series)
    check_name("run", version_name(series, 1))
    names = [version_name(series, number) for number in _numbers(store, series)]
    registered = (name for name in names if store.exists(f"runs/{name}/run.yaml"))
    return tuple(read_run(store, name) for name in registered)


def next_name(store: Store, series: str) -> str:
    """Return the name of a series' next run."""
    return version_name(series, 1 + max(_numbers(store, series), default=0))


def version_name(series: str, number: int) -> str:
    """Return the name of a run, e.g. ``birds-v0002``."""
    return f"{series}-v{number:04d}"


def version_of(run: Run) -> Version | None:
    """Return the origin of a run; None for a run without a previous version."""
    path = run.path(FILE)
    if not run.store.exists(path):
        return None
    return Version.from_json(run.store.read(path), where=run.store.uri(path), sealed=run.sealed)


def claim(run: Run, version: Version) -> None:
    """Store the origin of a run before the run is registered.

    Raises:
        ConfigError: another version has this name.
    """
    if run.store.create(run.path(FILE), version.to_json()) or version_of(run) == version:
        return
    raise ConfigError(
        f"runs/{run.name}: another re-distillation of this series, with other data or settings, "
        "started at the same time. Run this one again when the other is complete."
    )


def previous_index(run: Run) -> DatasetIndex | None:
    """Return the dataset whose class ids this run keeps; None for a first version."""
    version = version_of(run)
    return None if version is None else open_index(run.store, version.dataset)


def _numbers(store: Store, series: str) -> list[int]:
    """Return all numbers in use, ascending, including those of runs never registered."""
    pattern = re.compile(rf"{re.escape(series)}-v(\d{{4,}})")
    matches = (pattern.fullmatch(name) for name in store.folders("runs"))
    return sorted(int(match[1]) for match in matches if match)
