"""A run: a frozen config under a name in a store."""

from __future__ import annotations

from dataclasses import dataclass

from distill_core.config.load import fingerprint, parse_yaml, to_yaml, validate_run
from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from distill_core.storage.store import Store


@dataclass(frozen=True)
class Run:
    """A registered config: its name, and the store that holds its results."""

    name: str
    config: RunConfig
    store: Store

    def path(self, *parts: str) -> str:
        """Return a path below this run's folder, relative to the store."""
        return "/".join(("runs", self.name, *parts))


def default_name(config: RunConfig) -> str:
    """Return ``<preset>-<8 hex of the config>``: other values give another run."""
    return f"{config.preset}-{fingerprint(config)}"


def create_run(config: RunConfig, store: Store, name: str | None = None) -> Run:
    """Register a run by conditional create; the same config again is the same run.

    Raises:
        ConfigError: a run of this name has another config.
    """
    run = Run(name or default_name(config), config, store)
    check_name(run.name)
    if not store.create(run.path("run.yaml"), to_yaml(config).encode()):
        stored = open_run(store, run.name).config
        if stored != config:
            raise ConfigError(
                f"runs/{run.name}: the run exists with another config; it differs in "
                f"{', '.join(_differences(stored, config))}. Use another --name, or omit it."
            )
    return run


def check_name(name: str) -> None:
    """Refuse a name that is not a valid folder name on every system.

    Raises:
        ConfigError: it is empty, starts with a dot, or has characters that are not allowed.
    """
    if not name or set(name) & set('/\\:*?"<>| \n') or name.startswith("."):
        raise ConfigError(f"run name {name!r}: use letters, digits, dots, dashes and underscores.")


def open_run(store: Store, name: str) -> Run:
    """Read a registered run.

    Raises:
        ConfigError: there is no such run; the message lists the runs of the store.
    """
    run_path = f"runs/{name}/run.yaml"
    if not store.exists(run_path):
        known = ", ".join(store.folders("runs")) or "none"
        raise ConfigError(f"{store.url}: no run named {name!r}. Its runs: {known}.")
    tree = parse_yaml(store.read(run_path).decode(), where=run_path)
    return Run(name, validate_run(tree, where=run_path), store)


def _differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Return the top-level keys in which two configs differ."""
    before, after = old.model_dump(), new.model_dump()
    return [key for key in before if before[key] != after[key]]
