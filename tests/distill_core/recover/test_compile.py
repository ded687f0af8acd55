"""Compiled passes through the teacher: equal within rounding, and with a portable cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

COMPILED = """
import json, sys
from torch._dynamo.utils import counters
from tests.support.recovered_batches import BATCHES, RAGGED, together
from tests.support.tiny import tiny_teacher
words = ("recover.steps=4", f"recover.compile={sys.argv[1]}")
made = [one for batches in (BATCHES, RAGGED)
        for one in together(batches, *words, teachers=[tiny_teacher(sys.argv[2])])]
print(json.dumps({
    "pixels": [one.pixels.ravel().tolist() for one in made],
    "losses": [one.trace[0]["total"] for one in made],
    "graphs": counters["stats"]["unique_graphs"],
    "breaks": len(counters["graph_break"]),
    "hits": counters["inductor"]["fxgraph_cache_hit"],
    "misses": counters["inductor"]["fxgraph_cache_miss"],
}))
"""


def run(cache: Path, compiled: bool, precision: str = "float32") -> dict[str, list[float]]:
    """Recover a few batches in a process of its own, with compiled code kept in a folder."""
    words = [sys.executable, "-c", COMPILED, str(compiled).lower(), precision]
    where = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache), "PYTHONPATH": os.getcwd()}
    ended = subprocess.run(words, env=where, capture_output=True, text=True, check=True)
    found: dict[str, list[float]] = json.loads(ended.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_a_compiled_pass_in_bfloat16_is_one_graph_for_every_shape(tmp_path: Path) -> None:
    eager, compiled = (run(tmp_path, asked, "bfloat16") for asked in (False, True))
    assert (compiled["graphs"], compiled["breaks"]) == (2, 0)  # equal and ragged batches
    np.testing.assert_allclose(compiled["losses"], eager["losses"], rtol=0.02)


@pytest.mark.slow
def test_a_compiled_pass_is_one_graph_with_the_same_numbers_and_a_cache_that_travels(
    tmp_path: Path,
) -> None:
    eager, first = run(tmp_path / "one", False), run(tmp_path / "one", True)
    np.testing.assert_allclose(first["losses"], eager["losses"], rtol=1e-5)
    for ours, theirs in zip(first["pixels"], eager["pixels"], strict=True):
        assert np.abs(np.subtract(ours, theirs)).max() <= 2  # of 255, after four steps
    assert (eager["graphs"], first["graphs"], first["breaks"]) == (0, 2, 0)
    assert first["misses"]
    assert not first["hits"]
    (tmp_path / "one").rename(tmp_path / "other")  # as it reaches another machine
    again = run(tmp_path / "other", True)
    assert again["pixels"] == first["pixels"]
    assert again["hits"]
    assert not again["misses"]
