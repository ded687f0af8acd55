"""The config that the first argument of a command names: of a preset, a YAML file or a dataset.

The kind follows from the argument alone, in this order:

1. A name that ends in .yaml or .yml is a file.
2. The name of a shipped preset is that preset, also where a folder has the same name.
3. A URL, a path with a slash, `.` and `..`, and whatever exists here is a dataset.

Write ./NAME for a folder that is called like a preset.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from distill_core.config.explain import suggest
from distill_core.config.load import load_run, preset_names
from distill_core.config.recommended.facts import Machine
from distill_core.config.schema import RunConfig
from distill_core.data.detection.recommend import Recommendation, recommend
from distill_core.errors import ConfigError, one_line
from distill_core.machine_share import memory_share
from distill_core.naming.addresses import check_credentials, data_address
from tasks.execution import Execution
from tasks.pools import device

GPU_MEMORY = 8 * 2**30  # bytes, assumed of a GPU that is not in this machine


@dataclass(frozen=True)
class Requested:
    """A config, and what was found and chosen for it."""

    config: RunConfig
    lines: tuple[str, ...] = ()  # sentences about a dataset


def load_requested(argument: str, overrides: Sequence[str], execution: Execution) -> Requested:
    """Return the config that an argument names.

    Args:
        argument: a preset, a YAML file or a dataset.
        overrides: ``dotted.key=value``.
        execution: where it is to run, for which sizes are chosen if it is a dataset.

    Raises:
        ConfigError: there is nothing of this name, a setting is wrong, or the store would lie
            between the folders of classes.
        DataError: the dataset cannot be used.
    """
    check_credentials(argument, key="preset")
    if not is_dataset(argument):
        return Requested(load_run(argument, overrides))
    found = recommend_for(argument, overrides, execution)
    _check_store(found.config, execution)
    return Requested(found.config, tuple(found.lines()))


def is_dataset(argument: str) -> bool:
    """Return whether an argument is the address of a dataset.

    Raises:
        ConfigError: it is neither that nor a preset nor a YAML file.
    """
    if argument.endswith((".yaml", ".yml")) or argument in preset_names():
        return False
    if "/" in argument or argument in (".", "..", "~") or _exists(argument):
        return True
    hint = suggest(argument, preset_names()) or "Run `distill show` for a list of presets."
    raise ConfigError(
        one_line(f"{argument}: no such preset, and no folder or file of this name. {hint}")
    )


def check_is_config(argument: str, *, command: str, reason: str) -> None:
    """Refuse a dataset where only a config that stays as it is will do.

    Args:
        argument: a preset, a YAML file or something else.
        command: that was called.
        reason: why it takes no dataset.

    Raises:
        ConfigError: it is the address of a dataset.
    """
    try:
        refused = is_dataset(argument)
    except ConfigError:
        return  # neither a preset nor a dataset, which loading it reports
    if refused:
        raise ConfigError(
            f"{argument}: distill {command} takes a preset or a .yaml file, not a dataset, as "
            f"{reason}. Write a config with `distill init {shlex.quote(argument)}`, then use its "
            "file."
        )


def recommend_for(address: str, overrides: Sequence[str], execution: Execution) -> Recommendation:
    """Return the recommended run over a dataset, as `distill_core.data.detection.recommend`.

    Raises:
        ConfigError, DataError: as there.
    """
    memory = memory_share()
    if execution.device == "cuda":
        memory = min(memory, device.gpu_memory(execution) or GPU_MEMORY)
    machine = Machine(execution.device, memory)
    return recommend(address, overrides, machine)


def _exists(argument: str) -> bool:
    """Return whether there is a file or folder, also behind a name that no system could have."""
    try:
        return os.path.lexists(argument)
    except ValueError:
        return False


def _check_store(config: RunConfig, execution: Execution) -> None:
    """Refuse a store in a folder whose folders are classes, as it would become one."""
    root, store = config.data.path or "", data_address(execution.store, key="store")
    inside = store == root or store.startswith(f"{root.rstrip('/')}/")
    if config.data.train == "." and inside:
        raise ConfigError(
            f"{store}: the store lies in the dataset's folder, where every folder is a class. Set "
            "--store to a folder elsewhere."
        )
