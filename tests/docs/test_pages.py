from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.support.repository import ROOT, parsed

MENTION = re.compile(r"`([\w/]+\.py):([A-Za-z_][\w.]*)`")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def mentions(page: str) -> list[tuple[str, str]]:
    return MENTION.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))


@cache
def symbols(file: str) -> frozenset[str]:
    return frozenset(defined(parsed(file).body))


def defined(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    for node in body:
        if isinstance(node, DEFINITIONS):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from defined(node.body, f"{prefix}{node.name}.")


@pytest.mark.parametrize(("file", "symbol"), sorted(set(mentions("walkthrough.md"))))
def test_every_symbol_of_the_walkthrough_exists(file: str, symbol: str) -> None:
    assert (ROOT / file).is_file(), f"docs/walkthrough.md names {file}, which is gone"
    assert symbol in symbols(file), f"docs/walkthrough.md names {symbol}, which is not in {file}"


@pytest.mark.parametrize(("file", "symbol"), sorted(set(mentions("adding-a-method.md"))))
def test_every_symbol_of_the_page_on_adding_a_method_exists(file: str, symbol: str) -> None:
    assert symbol in symbols(file), f"docs/adding-a-method.md names {symbol}, not in {file}"


@pytest.mark.parametrize(("file", "symbol"), sorted(set(mentions("reliability.md"))))
def test_every_test_cited_for_a_guarantee_exists(file: str, symbol: str) -> None:
    assert (ROOT / file).is_file(), f"docs/reliability.md names {file}, which is gone"
    assert symbol in symbols(file), f"docs/reliability.md names {symbol}, which is not in {file}"


def test_every_kind_of_fault_has_a_row_and_a_test() -> None:
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\| F\d+ \|", line)]
    assert [row.split(" ")[1] for row in rows] == [f"F{n:02d}" for n in range(1, len(rows) + 1)]
    assert len(rows) >= 40
    assert all(MENTION.search(row) for row in rows)
    assert all(row.count(" | ") == 3 for row in rows)


def test_the_walkthrough_takes_at_most_twelve_hops_to_the_gradient() -> None:
    text = (ROOT / "docs/walkthrough.md").read_text(encoding="utf-8")
    hops = [int(number) for number in re.findall(r"^(\d+)\. ", text, flags=re.MULTILINE)]
    assert hops == list(range(1, len(hops) + 1))
    assert len(hops) <= 12
    assert text.index(f"\n{hops[-1]}. ") < text.index("**This is the gradient**")


def test_the_walkthrough_reaches_every_package() -> None:
    houses = {file.split("/")[0] for file, _ in mentions("walkthrough.md")}
    assert houses == {"flows", "tasks", "distill_core"}


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs/decisions").glob("*")))
def test_every_symbol_and_file_that_a_decision_names_exists(page: str) -> None:
    for file, symbol in mentions(f"decisions/{page}"):
        assert symbol in symbols(file), f"docs/decisions/{page} names {symbol}, not in {file}"
    text = (ROOT / "docs/decisions" / page).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:distill_core|tasks|flows|tests|docs)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), f"docs/decisions/{page} names {path}, which is gone"


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs/decisions").glob("*")))
def test_a_decision_has_its_five_parts_and_fits_a_page(page: str) -> None:
    text = (ROOT / "docs/decisions" / page).read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert headings == ["Context", "Decision", "Rejected", "Consequences"]
    assert re.search(r"^Status: \w+, \d{4}-\d{2}-\d{2}\.$", text, flags=re.MULTILINE)
    assert len(text.splitlines()) <= 60
