"""Errors that commands do not expect, as one line: wrong options, and bugs."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from typing import Any

import typer

from distill_core.redaction import sanitised

SHOW = "DISTILL_TRACEBACK"  # if it is set, tracebacks go to the terminal instead of a file

# The error of options that cannot be parsed. Typer has its own copy of click, or imports it,
# depending on its version.
UsageError: type[Exception] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError" and issubclass(c, Exception)
)


def usage(error: Any) -> str:
    """Return an error of the options in one line, with the command that explains them.

    Args:
        error: a `UsageError`; of a command without any arguments, which has printed its help, it
            is empty, and so is the line.
    """
    message, context = error.format_message().rstrip("."), error.ctx
    path = "distill" if context is None else context.command_path
    return f"{message}. See `{path} --help`." if message else ""


def unexpected(error: Exception) -> str:
    """Return a bug in one line; its traceback goes to a file that only this user can read."""
    # A library may have put credentials into its message.
    text = sanitised("".join(traceback.format_exception(error)))
    problem = sanitised(f"{type(error).__name__}: {error}".rstrip(": "))
    if os.environ.get(SHOW):
        print(text, file=sys.stderr, end="")
        return f"{problem}. This is a bug of distill: please report it with this traceback."
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="distill-traceback-", suffix=".txt", errors="backslashreplace", delete=False
        ) as file:
            file.write(text)
    except OSError:
        return f"{problem}. This is a bug of distill: set {SHOW}=1 to print its traceback."
    return (
        f"{problem}. This is a bug of distill: please report it with the traceback in {file.name} "
        f"({SHOW}=1 prints it)."
    )
