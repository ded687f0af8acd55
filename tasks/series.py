"""Versions of a series: runs ``<series>-v0001``, ``-v0002``, each made from the one before.

What a version was made from stands beside its run.yaml, in ``version.json``; it enters no key.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from distill_core.config.load import validate_run
from distill_core.config.schema import RunConfig
from distill_core.data.index import DatasetIndex, load_index
from distill_core.errors import ConfigError, DataError
from distill_core.storage.store import Store
from tasks.policy import TeacherPolicy
from tasks.run import Run, check_name, open_run

FILE = "version.json"


@dataclass(frozen=True)
class Version:
    """What a version was made from."""

    previous: str  # the complete run before it
    dataset: str  # of that run, whose class ids go on
    policy: TeacherPolicy  # what became of that run's teacher
    asked: RunConfig  # the frozen config adds to it where the teacher comes from

    def to_json(self) -> bytes:
        """Return the version as it is stored."""
        tree = {
            "previous": self.previous,
            "dataset": self.dataset,
            "policy": self.policy,
            "asked": self.asked.model_dump(mode="json"),
        }
        return json.dumps(tree, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, *, where: str) -> Version:
        """Read a stored version.

        Raises:
            DataError: it is not one.
        """
        try:
            tree = json.loads(data)
            asked = validate_run(tree.pop("asked"), where=where)
            return cls(asked=asked, **tree)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"{where}: not what a version was made from ({error!r}). Delete the run's folder "
                "and re-distil; its shards are kept."
            ) from None


def versions_of(store: Store, series: str) -> tuple[Run, ...]:
    """Return the registered runs of a series, oldest first.

    Raises:
        ConfigError: runs cannot be named after this series.
    """
    check_name(version_name(series, 1))
    names = [version_name(series, number) for number in _numbers(store, series)]
    there = (name for name in names if store.exists(f"runs/{name}/run.yaml"))
    return tuple(open_run(store, name) for name in there)


def next_name(store: Store, series: str) -> str:
    """Return the name of a series' next run."""
    return version_name(series, 1 + max(_numbers(store, series), default=0))


def version_name(series: str, number: int) -> str:
    """Return the name of a run, e.g. ``birds-v0002``."""
    return f"{series}-v{number:04d}"


def version_of(run: Run) -> Version | None:
    """Return what a run was made from; None for one that stands on nothing."""
    path = run.path(FILE)
    if not run.store.exists(path):
        return None
    return Version.from_json(run.store.read(path), where=run.store.uri(path))


def claim(run: Run, version: Version) -> None:
    """Write down what a run will be made from, before anybody can see the run.

    Raises:
        ConfigError: somebody else is making another version of this name.
    """
    if run.store.create(run.path(FILE), version.to_json()) or version_of(run) == version:
        return
    raise ConfigError(
        f"runs/{run.name}: another re-distillation of this series began at the same time, with "
        "other data or settings. Run this one again when it is done."
    )


def previous_index(run: Run) -> DatasetIndex | None:
    """Return the dataset whose class ids go on in this run; None for a first version."""
    version = version_of(run)
    return None if version is None else load_index(run.store, version.dataset)


def _numbers(store: Store, series: str) -> list[int]:
    """Return the numbers that are taken, ascending, even where a run was never registered."""
    pattern = re.compile(rf"{re.escape(series)}-v(\d{{4,}})")
    found = (pattern.fullmatch(name) for name in store.folders("runs"))
    return sorted(int(match[1]) for match in found if match)
