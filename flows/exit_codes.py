"""The exit codes of commands, by which a controller of jobs decides whether to start them again.

A signal ends a command with 128 and its number, as in shells: 130 on Ctrl-C, 143 on SIGTERM.
"""

from __future__ import annotations

from distill_core.errors import DistillError, RunIncomplete, ShardsFailed

FAILED = 1  # it was tried and failed: shards used up their attempts, or a bug
REFUSED = 2  # the command, the config, the data or the store has to be changed first
TEMPORARY = 75  # EX_TEMPFAIL of sysexits.h: the same command may succeed later


def exit_code(kind: type[Exception]) -> int:
    """Return the exit code of a command that ends with an error of some type."""
    if getattr(kind, "retryable", False):
        return TEMPORARY
    expected = issubclass(kind, DistillError) and not issubclass(kind, ShardsFailed | RunIncomplete)
    return REFUSED if expected else FAILED
