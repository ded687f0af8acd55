"""The layout of the repository: which modules a test may import, and how large files may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.repository import PACKAGES, ROOT, modules, parsed

TEST_MODULE = re.compile(r"\btests(?:\.\w+)*\.(?:test_\w+|conftest)\b")
# It runs the storage contract once more, in a bucket: these tests are what it imports them for.
RUNS_TESTS_OF_OTHERS = {"tests/s3/test_contract.py"}


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
    names = "\n".join((*imported(parsed(file)), text))
    return set(TEST_MODULE.findall(names)) - {file.removesuffix(".py").replace("/", ".")}


def test_no_module_imports_a_test_module() -> None:
    """Helpers that several tests share belong to tests/support."""
    importers = {file for file in modules("tests", "benchmarks") if named_test_modules(file)}
    assert importers == RUNS_TESTS_OF_OTHERS


@pytest.mark.parametrize("package", PACKAGES)
def test_the_top_level_of_a_package_has_at_most_twelve_modules(package: str) -> None:
    assert 0 < len(list((ROOT / package).glob("*.py"))) <= 12


def test_no_module_of_a_package_has_more_than_350_lines() -> None:
    lengths = {file: len((ROOT / file).read_text().splitlines()) for file in modules(*PACKAGES)}
    assert len(lengths) > 100
    assert {file: length for file, length in lengths.items() if length > 350} == {}


def test_every_folder_of_a_package_is_a_package() -> None:
    """Each folder with modules has an `__init__.py` that describes it."""
    folders = {Path(file).parent for file in modules(*PACKAGES)}
    assert {folder for folder in folders if not (ROOT / folder / "__init__.py").is_file()} == set()
