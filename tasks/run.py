"""A run: a frozen config under a name in a store.

``runs/<name>/run.yaml`` holds the config, the name of its run and a digest of all of it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from typing import Any

from distill_core.config.addresses import check_config
from distill_core.config.load import dump_yaml, fingerprint, parse_yaml, to_yaml, validate_run
from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError, DataError
from distill_core.naming.names import check_name, is_one_folder
from distill_core.storage.identity import ensure_identity
from distill_core.storage.records import BLANK, NAME, check_seal, seal
from distill_core.storage.store import Store

FILE = "run.yaml"
REMEDY = (
    "Restore it from a copy, or register the config again under another --name; finished shards "
    "are kept."
)
MAX_NAMES = 20  # of runs in a message


@dataclass(frozen=True)
class Run:
    """A registered config: its name, and the store that holds its results."""

    name: str
    config: RunConfig
    store: Store
    # False: its run.yaml was written by an older version, without a digest, so an edit of a value
    # shows only as a difference from the manifests.
    sealed: bool = field(default=True, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse a name that leads out of the folder of the runs, wherever it comes from."""
        if not is_one_folder(self.name):
            raise ConfigError(f"run name {self.name!r}: it is not the name of one folder.")

    def path(self, *parts: str) -> str:
        """Return a path below this run's folder, relative to the store."""
        return "/".join(("runs", self.name, *parts))


def default_name(config: RunConfig) -> str:
    """Return ``<preset>-<8 hex of the config>``: other values give another run."""
    return f"{config.preset}-{fingerprint(config)}"


def create_run(config: RunConfig, store: Store, name: str | None = None) -> Run:
    """Register a run by conditional create; the same config again is the same run.

    A store that has no identity yet gets one.

    Raises:
        ConfigError: a name that is not allowed, credentials in the config, or a run of this name
            with another config.
        DataError: the store's identity is damaged, or is of another program.
    """
    run = planned_run(config, store, name)
    check_config(config)
    ensure_identity(store)
    if not store.create(run.path(FILE), _record(config, run.name)):
        check_same(run)
    return run


def check_same(run: Run) -> None:
    """Refuse a run whose name is registered with another config.

    Raises:
        ConfigError: names the keys that differ.
    """
    if not run.store.exists(run.path(FILE)):
        return
    stored = read_run(run.store, run.name).config
    if stored != run.config:
        raise ConfigError(
            f"runs/{run.name}: the run exists with another config; it differs in "
            f"{', '.join(_differences(stored, run.config))}. Use another --name, or omit it."
        )


def planned_run(config: RunConfig, store: Store, name: str | None = None) -> Run:
    """Return a run that may not be registered yet.

    Raises:
        ConfigError: a name that is not allowed.
        DataError: it is registered, but its run.yaml was damaged or edited.
    """
    if name is None:
        name = default_name(config)
    run = Run(check_name("run", name), config, store)
    if not store.exists(run.path(FILE)):
        return run
    return replace(run, sealed=read_run(store, run.name).sealed)


def open_run(store: Store, name: str) -> Run:
    """Read a registered run that a person named.

    Raises:
        ConfigError: a name that is not allowed, or no such run; the message lists the runs of the
            store.
    """
    return read_run(store, check_name("run", name))


def read_run(store: Store, name: str) -> Run:
    """Read a registered run that the store lists; older versions allowed more names.

    Raises:
        ConfigError: there is no such store, or no such run; the message lists those it has.
        DataError: its run.yaml was damaged, edited, or copied from another run.
    """
    if not is_one_folder(name):
        raise ConfigError(f"run name {name!r}: it is not the name of one folder.")
    path = f"runs/{name}/{FILE}"
    if not store.exists(path):
        check_exists(store)
        if name in store.folders("runs"):
            raise ConfigError(
                f"{store.uri(path)}: no such object, but there is a folder of this name. {REMEDY}"
            )
        raise ConfigError(f"{store.url}: no run named {name!r}. Its runs: {_known(store)}.")
    data, where = store.read(path), store.uri(path)
    sealed = check_seal(data, where=where, remedy=REMEDY)
    tree = _tree(data, name, sealed=sealed, where=where)
    return Run(name, validate_run(tree, where=where), store, sealed=sealed)


def _record(config: RunConfig, name: str) -> bytes:
    """Return a run.yaml."""
    return seal(f"{to_yaml(config)}# run: {name}\n# {NAME}: {BLANK}\n")


def _tree(data: bytes, name: str, *, sealed: bool, where: str) -> Any:
    """Return the config of a run.yaml as a plain tree.

    Raises:
        DataError: it is not as a run was registered, or belongs to a run of another name.
    """
    try:
        text = data.decode()
        tree = parse_yaml(text, where=where)
    except (ConfigError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: not a registered config ({error}). {REMEDY}") from None
    if not sealed and dump_yaml(tree) != text:
        raise DataError(
            f"{where}: {len(data)} bytes that are not as a run was registered, so it was damaged "
            f"or edited. {REMEDY}"
        )
    if sealed and (owner := re.findall(r"^# run: (.*)$", text, re.MULTILINE)[-1]) != name:
        raise DataError(f"{where}: the config of run {owner!r}, expected {name!r}. {REMEDY}")
    return tree


def check_exists(store: Store) -> None:
    """Refuse a store that is neither a folder nor holds any object, for commands that only read.

    Raises:
        ConfigError: there is nothing at its address.
    """
    if os.path.isdir(store.url) or store.folders("") or store.names(""):
        return
    raise ConfigError(
        f"{store.url}: no such store, expected a folder or a prefix with the results of runs. "
        "Correct the address in --store."
    )


def _known(store: Store) -> str:
    """Return the names of the runs of a store, for messages."""
    names = store.folders("runs")
    more = f", ... ({len(names)} in all)" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more or "none"


def _differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Return the top-level keys in which two configs differ."""
    before, after = old.model_dump(), new.model_dump()
    return [key for key in before if before[key] != after[key]]
