"""The layout of the repository: which modules a test may import, and how large files may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST_MODULE = re.compile(r"\btests(?:\.\w+)*\.(?:test_\w+|conftest)\b")
# It runs the storage contract once more, in a bucket: these tests are what it imports them for.
RUNS_TESTS_OF_OTHERS = {"tests/s3/test_contract.py"}


def modules(*folders: str) -> list[str]:
    """Return the Python files of some folders, relative to the repository."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted name of everything that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def named_test_modules(file: str) -> set[str]:
    """Return the test modules that a file imports, or names in a program that it starts."""
    text = (ROOT / file).read_text(encoding="utf-8")
    names = "\n".join((*imported(ast.parse(text)), text))
    return set(TEST_MODULE.findall(names)) - {file.removesuffix(".py").replace("/", ".")}


def test_no_module_imports_a_test_module() -> None:
    """What several tests need belongs to tests/support."""
    importers = {file for file in modules("tests", "benchmarks") if named_test_modules(file)}
    assert importers == RUNS_TESTS_OF_OTHERS
