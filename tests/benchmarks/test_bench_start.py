"""The measurement of a start: one step in a new process, and a page with the time of each phase."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import bench_start
from distill_core.config.training import ModelConfig


@pytest.mark.slow
def test_a_process_reports_every_phase_of_its_start(tmp_path: Path) -> None:
    start = bench_start.Start(ModelConfig(name="convnet3", width=4), 16, 10, 4, 2)
    start.write(tmp_path)
    times = bench_start.started(tmp_path, start.batch, "cpu")
    phases = ["interpreter", "import torch", "import distill_core", "load the teacher"]
    assert list(times) == [*phases, "first step", "all of it"]
    assert all(wall > 0 and cpu >= 0 for wall, cpu in times.values())


def test_the_page_has_medians_without_the_first_process() -> None:
    runs = [{"first step": (wall, wall / 2)} for wall in (9.0, 1.0, 2.0, 6.0)]
    text = bench_start.report({"a teacher": runs}, "cpu")
    assert "median of 3 processes" in text
    assert "| first step | 2.00 | 1.00 | 9.00 |" in text
