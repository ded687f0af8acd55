"""Output of commands on stdout; progress and errors go to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from distill_core.redaction import sanitised

PIPE_WIDTH = 160  # columns of a table that goes to a file or a pipe


def print_lines(*lines: str) -> None:
    """Print lines, without credentials and control characters."""
    for line in lines:
        print(sanitised(line))


@cache  # once per process: a command and the flow it starts may both check
def warn(text: str) -> None:
    """Print a warning on stderr."""
    print(f"distill: warning: {sanitised(text)}", file=sys.stderr)


def print_json(tree: Any) -> None:
    """Print a tree as JSON."""
    print(json.dumps(tree, indent=1))


def print_table(renderable: RenderableType, tree: Any = None, *, as_json: bool = False) -> None:
    """Print a table, or the tree that holds the same as JSON."""
    if as_json:
        print_json(tree)
        return
    console = Console() if sys.stdout and sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    console.print(renderable, markup=False, highlight=False)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> Table:
    """Return a plain table."""
    plain = Table(*header, title=title or None, title_justify="left")
    for row in rows:
        plain.add_row(*map(sanitised, row))
    return plain


def pairs(rows: Iterable[tuple[str, str]], *, title: str) -> Table:
    """Return a table of quantities and their amounts."""
    return table(("", "amount"), rows, title=title)
