"""The example runs as it is shipped, with the public surface of the core and nothing else."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/distill_with_the_core.py"


def test_it_distils_a_set_that_teaches_a_student() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    accuracies = re.fullmatch(r"teacher (\S+) %, student of 20 images (\S+) %\n", done.stdout)
    assert accuracies is not None, done.stdout
    teacher, student = map(float, accuracies.groups())
    assert teacher > 90
    assert 60 < student <= 100  # 20 % is chance


def test_it_imports_the_public_surface_only_and_is_short() -> None:
    source = EXAMPLE.read_text(encoding="utf-8")
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    assert {node.module for node in imports} == {"__future__", "distill_core"}
    assert len(source.splitlines()) < 100
