"""Checks of store addresses as text, before a store is opened or an address is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from distill_core.storage.filesystems import AZURE_CONTAINER, split_address

FOLDERS = ("", "file", "local", "memory")
BUCKETS = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az")  # with conditional create

# What a form takes: an absolute folder, or a bucket without credentials in front of it.
PATTERN = rf"^(/.*|({'|'.join(BUCKETS)})://[^/@]+(/.*)?|abfss?://{AZURE_CONTAINER}(/.*)?)$"


def check_address(url: str) -> None:
    """Refuse an address that cannot be a store.

    Raises:
        ConfigError: it has credentials, has no bucket, or is of another kind.
    """
    parts = split_address("store", url)
    if parts.scheme not in (*FOLDERS, *BUCKETS):
        raise ConfigError(
            f"store = {url!r}: expected a folder or s3://bucket/prefix (also gs://, abfs://). "
            f"{parts.scheme}:// has no conditional create, which protects results from a second "
            "driver."
        )
    if parts.scheme in BUCKETS and not parts.netloc:
        raise ConfigError(f"store = {url!r}: no bucket; expected {parts.scheme}://bucket/prefix.")
    if parts.scheme in BUCKETS and ".." in parts.path.split("/"):
        raise ConfigError(f"store = {url!r}: `..` does not lead upwards in a bucket. Leave it out.")


def check_config(config: RunConfig) -> None:
    """Refuse credentials anywhere in a config, because it is stored with every run.

    Raises:
        ConfigError: names the key, not the credentials.
    """
    for key, text in _texts(config.model_dump(mode="json")):
        if "://" in text:
            split_address(key, text)


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
