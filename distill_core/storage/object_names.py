"""The grammar of the names that a store gives to its objects below the folder of a stage.

Only what has such a name may be deleted: a name with 128 random bits, or with a content key and
such bits, belongs to nobody else. Everything else in the folders of a store is foreign.

``_done/<key>.json``                                   marker
``data/<key>-<token>.<suffix>``                        file of an attempt
``data/<key>-<token>.00012.pack``                      piece of a larger file, or of many images
``checkpoints/<key>-<token>/step-000012.safetensors``  state of an attempt
``checkpoints/<key>-<token>/step-000012-000340.safetensors``  likewise, inside an epoch
``checkpoints/<key>-<token>/pointer.json``             its newest complete state
``.<name>.<16 hex>.partial``                           unfinished write of ``<name>`` on a disk
``.<name>[.<16 hex>].claim.partial/``                  folder of such a file, see `exclusive`

Keys and tokens have 32 hexadecimal digits.
"""

from __future__ import annotations

import re

from distill_core.storage.exclusive import CLAIM
from distill_core.storage.listing import PARTIAL
from distill_core.storage.markers import MARKER_SUFFIX

POINTER = "pointer.json"
HEX = r"[0-9a-f]{32}"
MENTIONED = re.compile(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")  # keys and tokens in bytes
SUFFIXES = (
    "parquet",
    "trace.json",
    "safetensors",
    "pooled.safetensors",
    "ema.safetensors",
    "json",
    "result.json",
)
_MARKER = re.compile(rf"({HEX}){re.escape(MARKER_SUFFIX)}")
_DATA = re.compile(rf"({HEX})-({HEX})\.(?:{'|'.join(map(re.escape, SUFFIXES))}|\d{{5,}}\.pack)")
_CHECKPOINTS = re.compile(rf"({HEX})-({HEX})")
_CHECKPOINT = re.compile(rf"step-\d{{6,}}(?:-\d{{6,}})?\.safetensors|{re.escape(POINTER)}")
_BITS = r"\.[0-9a-f]{16}"
_PARTIAL = re.compile(
    rf"(?P<folder>(?:.*?/)??)(?:\.(?P<claimed>[^/]+?)(?:{_BITS})?{re.escape(CLAIM)}/)?"
    rf"\.(?P<name>[^/]+){_BITS}{re.escape(PARTIAL)}",
    re.DOTALL,
)


def marker_key(name: str) -> str | None:
    """Return the key in the name of a marker; None if it is no such name."""
    match = _MARKER.fullmatch(name)
    return match[1] if match else None


def data_attempt(name: str) -> tuple[str, str] | None:
    """Return key and token in the name of a data file; None if it is no such name."""
    match = _DATA.fullmatch(name)
    return (match[1], match[2]) if match else None


def checkpoint_attempt(folder: str) -> tuple[str, str] | None:
    """Return key and token in the name of a folder of checkpoints; None if it is no such name."""
    match = _CHECKPOINTS.fullmatch(folder)
    return (match[1], match[2]) if match else None


def is_checkpoint_file(name: str) -> bool:
    """Return whether a file in a folder of checkpoints has the name of a state or a pointer."""
    return _CHECKPOINT.fullmatch(name) is not None


def is_random(name: str) -> bool:
    """Return whether a name consists of 128 random bits, as those of probes do."""
    return re.fullmatch(HEX, name) is not None


def final_path(path: str) -> str | None:
    """Return the path that an unfinished write was meant for; None if it is no such write."""
    match = _PARTIAL.fullmatch(path)
    if match is None or match["claimed"] not in (None, match["name"]):
        return None
    return match["folder"] + match["name"]
