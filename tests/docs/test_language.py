"""The language of the packages: docstrings that state what a module holds, and standard terms."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.repository import PACKAGES, modules, parsed

MODULES = modules(*PACKAGES)
QUESTION = re.compile(r"(What|Where|How|Which|Who)\b")
# Names that this project used for what the field calls otherwise, as words of an identifier.
PRIVATE_WORDS = {
    "course": "BatchRecovery",
    "desk": "WorkerContext",
    "gathered": "ViewBuffer",
    "judgement": "history",
    "judgements": "history",
    "lens": "SamplingGrid",
    "liveness": "references",
    "speak": "as_ensemble",
    "trainee": "TrainState",
}
PRIVATE_NAMES = {  # whole identifiers
    "Ahead": "Prefetched",
    "Leaves": "PixelParameters",
    "PlanFacts": "RunInputs",
    "Shown": "RenderedViews",
    "StageShelf": "ShardStore",
    "Unread": "StreamedSplit",
    "WAITS": "NEEDS_SYNC",
    "World": "DistributedContext",
    "lines_read": "source_rows",
    "look_through": "resample",
    "refusals": "error_hints",
}


def identifiers(tree: ast.Module) -> Iterator[str]:
    """Yield every name that a module defines, assigns, imports or takes as an argument."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.arg():
                yield node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr
            case ast.alias():
                yield from (node.asname or node.name).split(".")


def words(identifier: str) -> list[str]:
    """Return the words of an identifier in snake case or camel case, in small letters."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", identifier).lower().strip("_").split("_")


def better(identifier: str) -> str | None:
    """Return the standard term for an identifier that is private to this project."""
    if identifier in PRIVATE_NAMES:
        return PRIVATE_NAMES[identifier]
    return next((PRIVATE_WORDS[word] for word in words(identifier) if word in PRIVATE_WORDS), None)


@pytest.mark.parametrize(
    ("identifier", "term"),
    [
        ("_BatchCourse", "BatchRecovery"),
        ("desk_of", "WorkerContext"),
        ("World", "DistributedContext"),
        ("world_size", None),
        ("of_course", "BatchRecovery"),
        ("discourse", None),
    ],
)
def test_private_words_are_found_in_identifiers(identifier: str, term: str | None) -> None:
    assert better(identifier) == term


def test_no_identifier_has_a_private_word() -> None:
    found = {
        (file, each): term
        for file in MODULES
        for each in identifiers(parsed(file))
        if (term := better(each))
    }
    assert found == {}


def test_every_module_has_a_docstring_without_a_todo() -> None:
    docstrings = {file: ast.get_docstring(parsed(file)) or "" for file in MODULES}
    assert {file for file, text in docstrings.items() if len(text) < 20} == set()
    assert {file for file, text in docstrings.items() if re.search(r"TODO|FIXME", text)} == set()


def test_a_module_docstring_is_a_statement_not_a_question() -> None:
    openings = {(ast.get_docstring(parsed(file)) or "").partition("\n")[0] for file in MODULES}
    assert {line for line in openings if QUESTION.match(line)} == set()
