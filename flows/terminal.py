"""What commands print on stdout; progress and errors go to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

PIPE_WIDTH = 160  # columns of a table that goes to a file or a pipe


def say(*lines: str) -> None:
    """Print lines as they are."""
    for line in lines:
        print(line)


@cache  # once per process: a command and the flow it starts may both check
def warn(text: str) -> None:
    """Print a warning on stderr."""
    print(f"distill: warning: {text}", file=sys.stderr)


def say_json(tree: Any) -> None:
    """Print a tree as JSON."""
    print(json.dumps(tree, indent=1))


def show(table: RenderableType, tree: Any = None, *, as_json: bool = False) -> None:
    """Print a table, or instead of it the same as JSON."""
    if as_json:
        say_json(tree)
        return
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    console.print(table, markup=False, highlight=False)


def rows(header: Sequence[str], body: Iterable[Sequence[str]], *, title: str = "") -> Table:
    """Return a plain table."""
    table = Table(*header, title=title or None, title_justify="left")
    for row in body:
        table.add_row(*row)
    return table


def pairs(body: Iterable[tuple[str, str]], *, title: str) -> Table:
    """Return a table of (what, how much)."""
    return rows(("", "how much"), body, title=title)
