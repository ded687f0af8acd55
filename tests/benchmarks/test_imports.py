"""Benchmarks run rarely, so what they import is checked with every change."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from tests.support.repository import ROOT

OURS = ("distill_core", "tasks", "flows", "benchmarks", "tests")
SCRIPTS = sorted((*ROOT.glob("benchmarks/*.py"), *ROOT.glob("examples/*.py")))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_name_that_a_benchmark_imports_exists(script: Path) -> None:
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            assert node.module is not None
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
