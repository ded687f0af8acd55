"""docs/runbook.md: its commands exist, and the messages that it shows are those of the code."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache

import pytest
import typer.main

from flows.cli import app
from tests.support.repository import PACKAGES, ROOT, modules, parsed

PAGE = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
SECTIONS = dict(zip(*[iter(re.split(r"^## (.*)$", PAGE, flags=re.MULTILINE)[1:])] * 2, strict=True))
LETTERS = 8  # of a piece of text, at least


def blocks(section: str) -> list[str]:
    """Return the code blocks of a section."""
    return re.findall(r"^```\n(.*?)^```$", SECTIONS[section], re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of distill in a text."""
    for match in re.finditer(r"(?:^\$ |`)(distill [a-z][^`\n#]*)", text, re.MULTILINE):
        yield shlex.split(match[1])[1:]


def messages(section: str) -> list[str]:
    """Return the lines that distill prints on stderr, as the page shows them."""
    lines = [line for block in blocks(section) for line in block.splitlines()]
    return [line for line in lines if line.startswith("distill: ")]


@cache
def pieces() -> frozenset[str]:
    """Return every piece of text in the code that is long enough to be recognised."""
    return frozenset(
        node.value
        for file in modules(*PACKAGES)
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if len(re.sub(r"\W", "", node.value)) >= LETTERS
    )


def known_share(message: str) -> float:
    """Return the share of a message that is text of the code; values that it contains are not."""
    known = [False] * len(message)
    for piece in pieces():
        first = message.find(piece)
        if first >= 0:
            known[first : first + len(piece)] = [True] * len(piece)
    return sum(known) / len(message)


def test_there_are_a_dozen_incidents_with_symptom_and_commands() -> None:
    assert len(SECTIONS) >= 12
    for title, text in SECTIONS.items():
        assert text.strip().startswith("Symptom: "), title
        assert any(commands(block) for block in blocks(title)), title


@pytest.mark.parametrize("section", SECTIONS)
def test_every_command_exists_with_its_options(section: str) -> None:
    root = typer.main.get_command(app)
    for words in commands(SECTIONS[section]):
        command, rest = root, list(words)
        while rest and (below := getattr(command, "commands", {}).get(rest[0])):
            command, rest = below, rest[1:]
        assert command is not root, words
        known = {option for parameter in command.params for option in parameter.opts}
        options = {word for word in rest if word.startswith("--")}
        if words[0] == "schedule" and command.name == "schedule":  # its first word is a preset
            known |= {o for p in command.commands["add"].params for o in p.opts}  # type: ignore[attr-defined]
        assert options <= known, words


@pytest.mark.parametrize("section", [title for title in SECTIONS if messages(title)])
def test_every_message_is_one_that_the_code_has(section: str) -> None:
    for message in messages(section):
        assert known_share(message) > 0.5, message


def test_a_message_that_the_code_does_not_have_is_found() -> None:
    message = "distill: warning: the disk of this node is full. Call the person on duty."
    assert known_share(message) < 0.5


def test_pages_that_lead_to_it_name_it() -> None:
    for page in ("README.md", "deploy/monitoring/README.md", "deploy/prefect/README.md"):
        assert "docs/runbook.md" in (ROOT / page).read_text(encoding="utf-8"), page
