"""The addresses and names in a config, judged before it is printed, stored or sent anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distill_core.config.schema import RunConfig
from distill_core.naming.addresses import (
    check_credentials,
    check_text,
    checkpoint_address,
    data_address,
)
from distill_core.naming.names import check_name


def check_config(config: RunConfig) -> None:
    """Refuse addresses that hold credentials or are not addresses, and credentials in any text.

    Raises:
        ConfigError: names the key, but not the credentials.
    """
    check_name("data.name", config.data.name)
    for key, text in _texts(config.model_dump(mode="json")):
        if key.endswith(".checkpoint"):
            checkpoint_address(text, key=key)
        elif key == "data.path":
            data_address(text, key=key)
        elif key in ("data.train", "data.test"):  # below data.path
            check_credentials(text, key=key)
        else:
            check_text(text, key=key)


def _texts(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the key and the value of every text in a tree."""
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _texts(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list):
        for value in tree:
            yield from _texts(value, path)
