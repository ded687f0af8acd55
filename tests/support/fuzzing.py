"""Random input for the fuzz tests: values, trees and bytes that are almost right.

In the ordinary suite the examples are few and always the same. `make fuzz` sets DISTILL_FUZZ to a
factor: that many times as many, other ones each time.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from distill_core.errors import MAX_LINE
from flows import cli
from tests.support.cli import CommandOutput

FACTOR = int(os.environ.get("DISTILL_FUZZ", "1"))

PROGRESS = re.compile(r"[a-z]+: (started|finished|\d+/)")  # a line of `flows.progress` in a pipe
NUMBERED = re.compile(r"\d+\. ")  # one of several problems

# Values that a config, a record or an option may hold by mistake.
ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    "",
    "x",
    "off",
    "../..",
    "a\nb\x1b[31m\t",
    "\x00",
    "\ud800",
    "9" * 5000,
    "2001-99-99",
    "1e999",
    0,
    -1,
    1,
    2,
    10**6,
    2**63,
    10**30,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    {"x": 1},
)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary()
)
trees = st.recursive(
    st.sampled_from(ODD) | scalars.filter(lambda value: not isinstance(value, bytes)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


def examples(count: int) -> Callable[[Any], Any]:
    """Return the settings of a fuzz test that has `count` examples in the ordinary suite."""
    return settings(
        max_examples=count * FACTOR,
        derandomize=FACTOR == 1,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def mutated_trees(draw: st.DrawFn, tree: Any, changes: int = 3) -> Any:
    """Draw a copy of a tree with a few values replaced, removed or added."""
    for _ in range(draw(st.integers(1, changes))):
        tree = _changed(draw, tree)
    return tree


def _changed(draw: st.DrawFn, node: Any) -> Any:
    """Return a copy of a tree that differs in one place."""
    if not isinstance(node, dict | list) or not node or draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(ODD) | trees)
    copy: Any = dict(node) if isinstance(node, dict) else list(node)
    place: Any = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
    match draw(st.integers(0, 7)):
        case 0:
            del copy[place]
        case 1 if isinstance(copy, dict):
            copy[draw(st.text(max_size=8))] = draw(trees)
        case _:
            copy[place] = _changed(draw, copy[place])
    return copy


@st.composite
def mutated_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Draw a copy of some bytes with a few of them flipped, cut out, doubled or replaced."""
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(0, len(data)))
        last = draw(st.integers(first, min(len(data), first + 40)))
        match draw(st.integers(0, 3)):
            case 0:
                data = data[:first] + bytes(byte ^ 0x55 for byte in data[first:last]) + data[last:]
            case 1:
                data = data[:first] + draw(st.binary(max_size=20)) + data[last:]
            case 2:
                data = data[:first] + data[last:]
            case _:
                data = data[:first]
    return data


def invoke(arguments: Sequence[str]) -> CommandOutput:
    """Run one command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["distill", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as end:
            return CommandOutput(out.getvalue(), err.getvalue(), int(end.code or 0))
    raise AssertionError("the command line did not exit")


def check_output(output: CommandOutput) -> None:
    """Check that a command succeeded, or failed with one line after progress and warnings.

    The checks before a run may find several problems, which follow it in numbered lines.
    """
    lines = [line for line in output.err.splitlines() if not line.startswith("distill: warning: ")]
    errors = [line for line in lines if line.startswith("distill: ")]
    assert output.code in (0, 1, 2), output
    assert "This is a bug" not in output.err, output.err
    problems = [line for line in lines if NUMBERED.match(line)]
    assert len(problems) != 1, output.err
    assert not problems or errors == [f"distill: {len(problems)} problems:"], output.err
    assert all(line in errors + problems or PROGRESS.match(line) for line in lines), output.err
    assert len(errors) <= 1, output.err
    assert all(len(line) < MAX_LINE + 100 for line in errors + problems)
    assert output.code != 2 or errors or "Usage:" in output.out, output
