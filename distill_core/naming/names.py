"""The check of names that become the name of a folder, an object or a web page."""

from __future__ import annotations

import re

from distill_core.errors import ConfigError
from distill_core.redaction import redacted

MAX_BYTES = 100  # of UTF-8; file systems allow 255, and suffixes such as -v0001 are added
# For the forms of Prefect's page; `check_name` is stricter.
PATTERN = r"^[^\s/\\:*?\"<>|.-][^\s/\\:*?\"<>|]{0,99}$"
FORBIDDEN = frozenset('/\\:*?"<>| ')
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # on Windows


def check_name(what: str, name: str) -> str:
    """Return a name that is a valid name of a folder on every system, or refuse it.

    Args:
        what: the kind of name, for the message: run, series, deployment.
        name: as a person entered it.

    Raises:
        ConfigError: the name is empty, too long or reserved, or has characters that are not
            allowed; control characters are shown as escapes.
    """
    if problem := _problem(name):
        text = redacted(name)
        shown = ascii(text) if len(text) <= MAX_BYTES else f"{text[:MAX_BYTES]!a}..."
        raise ConfigError(
            f"{what} name {shown}: {problem}. Use letters, digits, dots, dashes and underscores."
        )
    return name


def is_one_folder(name: str) -> bool:
    """Return whether a name is one part of a path, and leads neither upwards nor below."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _problem(name: str) -> str | None:
    if not name:
        return "it is empty"
    if not name.isprintable():
        return "it has a control character or another one that cannot be printed"
    if forbidden := sorted(FORBIDDEN.intersection(name)):
        return f"it has {forbidden[0]!r}"
    if name[0] in ".-":
        return f"it starts with {name[0]!r}"
    if name[-1] == ".":
        return "it ends with a dot"
    if len(name.encode()) > MAX_BYTES:
        return f"it has {len(name.encode())} bytes, at most {MAX_BYTES} expected"
    if RESERVED.fullmatch(name):
        return "it is reserved on Windows"
    return None
