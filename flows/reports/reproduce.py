"""How to get the same run again: the exact command, and the versions it ran with."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import yaml

from distill_core.config.load import load_run, preset_names
from distill_core.config.schema import RunConfig
from tasks.run import Run

PACKAGES = (
    "distill",
    "torch",
    "torchvision",
    "numpy",
    "pyarrow",
    "pydantic",
    "ray",
    "prefect",
)


def command(run: Run) -> str:
    """Return the command line that makes this run again."""
    name, store = run.config.preset, shlex.quote(run.store.url)
    if name not in preset_names():
        return f"distill run {shlex.quote(f'{name}.yaml')} --store {store}"
    words = ["distill", "run", name, *overrides(run.config), "--store"]
    return f"{' '.join(shlex.quote(word) for word in words)} {store}"


def overrides(config: RunConfig) -> list[str]:
    """Return the ``key=value`` pairs that lead from the shipped preset to this config."""
    shipped = load_run(config.preset).model_dump(mode="json")
    return list(_changes(shipped, config.model_dump(mode="json")))


def versions() -> list[tuple[str, str]]:
    """Return (package, version) of what decides results, without importing any of it."""
    return [
        ("python", platform.python_version()),
        *((name, _version(name)) for name in PACKAGES),
    ]


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in new.items():
        before, path = old.get(key), f"{prefix}{key}"
        if before == value:
            continue
        if isinstance(before, dict) and isinstance(value, dict) and before.keys() <= value.keys():
            yield from _changes(before, value, f"{path}.")
        else:
            yield f"{path}={_flow(value)}"


def _flow(value: Any) -> str:
    """Return a value as one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
