"""Parameters of the flows. Prefect shows them as a form, and the flow checks them once more.

Prefect's server refuses what the JSON schema rules out (patterns, ranges, the whole config) when a
run is requested. The rest is refused here, before a store is touched or a worker started.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from distill_core.config.addresses import check_config
from distill_core.config.load import load_run, preset_names
from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from distill_core.naming import addresses, names
from distill_core.storage.store import Store
from flows.runs.pipeline import execution_of
from flows.runs.shard_selection import check_numbers
from tasks.execution import Execution, Placement

if TYPE_CHECKING:
    from prefect.client.schemas.responses import DeploymentResponse

Parameters = dict[str, Any]
PresetName = Annotated[str, Field(json_schema_extra={"enum": list(preset_names())})]
# Patterns in `json_schema_extra` are checked by the server alone, before it stores anything. An
# error of Pydantic would repeat the value in Prefect's log.
WITHOUT_SECRETS = addresses.TEXT_PATTERN + r"[A-Za-z_][\w.]*="
Override = Annotated[str, Field(json_schema_extra={"pattern": WITHOUT_SECRETS})]
StoreAddress = Annotated[str, Field(json_schema_extra={"pattern": addresses.STORE_PATTERN})]
Name = Annotated[str, Field(json_schema_extra={"pattern": names.PATTERN})]
ShardList = Annotated[str, Field(pattern=r"^\s*\d+(-\d+)?(\s*,\s*\d+(-\d+)?)*\s*$")]


def resolved(
    preset: str | None, overrides: Sequence[str], config: RunConfig | None = None
) -> RunConfig:
    """Return the config that was given, or else the one of a preset with overrides.

    Raises:
        ConfigError: neither was given, a key or value is wrong, or an address holds credentials.
    """
    if config is None:
        if preset is None:
            raise ConfigError("preset: missing. Set `preset` to a name, or `config` to a config.")
        config = load_run(preset, overrides)
    check_config(config)
    return config


def placed(
    store: str, placement: Placement, *, shards: str | None = None, and_later: bool = False
) -> Execution:
    """Return where and how jobs run.

    Raises:
        ConfigError: an address that cannot be a store, a relative folder, or wrong shards.
    """
    if "://" not in store and not os.path.isabs(os.path.expanduser(store)):
        raise ConfigError(
            f"store = {store!r}: a relative folder would lie in the temporary folder of the flow "
            "run. Use an absolute folder, or s3://bucket/prefix."
        )
    check_numbers(shards, and_later=and_later)
    return execution_of({**placement.model_dump(), "store": store})


def with_absolute_paths(config: RunConfig) -> tuple[RunConfig, dict[str, str]]:
    """Return a config for another folder or machine: its relative paths start at this folder.

    Returns:
        The config, and its local paths by key, e.g. ``data.path``.
    """
    tree, local = config.model_dump(mode="json"), dict[str, str]()
    squeeze = tree["squeeze"]
    places = [("data.path", tree["data"], "path"), ("squeeze.checkpoint", squeeze, "checkpoint")]
    places += [
        (f"squeeze.pool[{number}].checkpoint", member, "checkpoint")
        for number, member in enumerate(squeeze["pool"])
    ]
    for key, holder, field in places:
        if (value := holder[field]) and addresses.is_local(value):
            holder[field] = local[key] = os.path.abspath(os.path.expanduser(value))
    return RunConfig.model_validate(tree), local


def of_config(config: RunConfig) -> Parameters:
    """Return the parameters that set the config; it replaces preset and overrides."""
    return {"preset": None, "overrides": [], "config": config.model_dump(mode="json")}


def completed(deployment: DeploymentResponse, parameters: Parameters) -> Parameters:
    """Return parameters with the deployment's own for those that are left out, checked.

    Raises:
        ConfigError: no store, an address that cannot be one, a wrong execution setting, or the
            name of a run or a series that is not allowed.
    """
    for what in ("run", "series"):
        if parameters.get(what) is not None:
            names.check_name(what, parameters[what])
    defaults = deployment.parameters or {}
    store = parameters.get("store") or defaults.get("store")
    if not store:
        raise ConfigError(f"store: the deployment {deployment.name} has none. Set it with --store.")
    execution = {**(defaults.get("execution") or {}), **parameters.get("execution", {})}
    execution_of({**execution, "store": store})
    return {**parameters, "store": Store(store).url, "execution": execution}
