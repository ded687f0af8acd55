"""A run: a frozen config under a name in a store."""

from __future__ import annotations

from dataclasses import dataclass

from distill_core.config.load import fingerprint, parse_yaml, to_yaml, validate_run
from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from distill_core.storage.store import Store


@dataclass(frozen=True)
class Run:
    """What is to be made, and where."""

    name: str
    config: RunConfig
    store: Store

    def path(self, *parts: str) -> str:
        """Return a path below this run's folder, relative to the store."""
        return "/".join(("runs", self.name, *parts))


def default_name(config: RunConfig) -> str:
    """Return ``<preset>-<8 hex of the config>``: other values, other run, shared shards."""
    return f"{config.preset}-{fingerprint(config)}"


def create_run(config: RunConfig, store: Store, name: str | None = None) -> Run:
    """Register a run by conditional create; the same config again is the same run.

    Raises:
        ConfigError: another config stands under this name.
    """
    run = Run(name or default_name(config), config, store)
    check_name(run.name)
    if not store.create(run.path("run.yaml"), to_yaml(config).encode()):
        stored = open_run(store, run.name).config
        if stored != config:
            raise ConfigError(
                f"runs/{run.name}: another config stands under this name; it differs in "
                f"{', '.join(_differences(stored, config))}. Choose another --name, or none."
            )
    return run


def check_name(name: str) -> None:
    """Refuse a name that cannot be that of a folder everywhere.

    Raises:
        ConfigError: it is empty, hidden, or has strange characters.
    """
    if not name or set(name) & set('/\\:*?"<>| \n') or name.startswith("."):
        raise ConfigError(f"run name {name!r}: use letters, digits, dots, dashes, underscores.")


def open_run(store: Store, name: str) -> Run:
    """Read a run back.

    Raises:
        ConfigError: no such run; the message lists the runs of the store.
    """
    run_path = f"runs/{name}/run.yaml"
    if not store.exists(run_path):
        known = ", ".join(store.folders("runs")) or "none"
        raise ConfigError(f"{store.url}: no run named {name!r}. Runs there: {known}.")
    tree = parse_yaml(store.read(run_path).decode(), where=run_path)
    return Run(name, validate_run(tree, where=run_path), store)


def _differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Return the first-level keys in which two configs differ."""
    before, after = old.model_dump(), new.model_dump()
    return [key for key in before if before[key] != after[key]]
