"""The YAML document of a recommended config: every setting with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from textwrap import wrap
from typing import Any

import yaml

from distill_core.config.recommended.settings import Setting

WIDTH = 100  # columns, beyond which the reason stands above its setting
NAMED = 100  # classes in the comment


def document(settings: Sequence[Setting], opening: Sequence[str], classes: Sequence[str]) -> str:
    """Return commented YAML.

    Args:
        settings: in the order of the config; those of one part follow each other.
        opening: lines of the comment at the top.
        classes: their names.
    """
    named = ", ".join(map(readable, classes[:NAMED]))
    more = f" and {len(classes) - NAMED:,} more" if len(classes) > NAMED else ""
    comment = [*opening, f"Classes: {named}{more}."] if classes else opening
    lines = [f"# {part}" for line in comment for part in wrap(readable(line), WIDTH - 2)]
    return "\n".join([*lines, *_lines(_grouped(settings))]) + "\n"


def readable(text: str) -> str:
    """Return a text in one line; a character that cannot be printed becomes an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _grouped(settings: Sequence[Setting]) -> list[Setting]:
    """Return the settings with the parts of each section together, in the order of the first."""
    order: dict[str, list[Setting]] = {}
    for setting in settings:
        order.setdefault(setting.key.partition(".")[0], []).append(setting)
    flat = []
    for name, section in order.items():
        inner = [setting for setting in section if setting.key != name]
        below = [Setting(s.key.partition(".")[2], s.value, s.why) for s in inner]
        flat += [Setting(f"{name}.{s.key}", s.value, s.why) for s in _grouped(below)]
        flat += [setting for setting in section if setting.key == name]
    return flat


def _lines(settings: Sequence[Setting]) -> Iterator[str]:
    open_: list[str] = []
    for setting in settings:
        *parents, leaf = setting.key.split(".")
        pairs = zip(open_, parents, strict=False)
        same = len([*takewhile(lambda pair: pair[0] == pair[1], pairs)])
        for depth, name in enumerate(parents[same:], same):
            yield f"{'  ' * depth}{_scalar(name)}:"
        open_ = parents
        indent = "  " * len(parents)
        line, why = f"{indent}{_scalar(leaf)}: {_scalar(setting.value)}", readable(setting.why)
        if len(line) + len(why) + 3 <= WIDTH:
            yield f"{line} # {why}"
        else:
            yield f"{indent}# {why}"
            yield line


def _scalar(value: Any) -> str:
    """Return a value as YAML in one line."""
    text = yaml.safe_dump(
        [value], default_flow_style=True, allow_unicode=True, width=10**9, sort_keys=False
    )
    return text[1:-2]
