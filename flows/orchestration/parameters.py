"""Parameters of the flows: Prefect shows them as a form, the flow checks them once more.

What JSON schema can say (patterns, ranges, the whole config) Prefect's server refuses when a run is
asked for; the rest is refused here, before a store is touched or a worker started.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from distill_core.config.load import load_run, preset_names
from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from flows import addresses
from flows.runs.pipeline import execution_of
from flows.runs.shard_selection import parse_numbers
from tasks.execution import Execution, Placement

PresetName = Annotated[str, Field(json_schema_extra={"enum": list(preset_names())})]
Override = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*=")]
StoreAddress = Annotated[str, Field(json_schema_extra={"pattern": addresses.PATTERN})]
ShardList = Annotated[str, Field(pattern=r"^\s*\d+(-\d+)?(\s*,\s*\d+(-\d+)?)*\s*$")]


def resolved(
    preset: str | None, overrides: Sequence[str], config: RunConfig | None = None
) -> RunConfig:
    """Return the config that was given, or else the one that a preset and overrides describe.

    Raises:
        ConfigError: neither was given, a key or value is wrong, or an address holds credentials.
    """
    if config is None:
        if preset is None:
            raise ConfigError("preset: say a preset, or a whole config.")
        config = load_run(preset, overrides)
    addresses.check_config(config)
    return config


def placed(store: str, placement: Placement, *, shards: str | None = None) -> Execution:
    """Return where and how jobs run.

    Raises:
        ConfigError: not a store, a folder relative to nobody knows what, or wrong shards.
    """
    if "://" not in store and not os.path.isabs(os.path.expanduser(store)):
        raise ConfigError(
            f"store = {store!r}: a relative folder would lie in the flow's temporary one. "
            "Say an absolute folder, or s3://bucket/prefix."
        )
    if shards is not None:
        parse_numbers(shards)
    return execution_of({**placement.model_dump(), "store": store})
