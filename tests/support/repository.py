"""The files of this repository, for tests of how they are written and arranged."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("distill_core", "tasks", "flows")


def modules(*folders: str) -> list[str]:
    """Return the Python files of some folders, relative to the repository."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


@cache
def parsed(file: str) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))
