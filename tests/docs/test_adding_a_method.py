"""The page on adding a method, followed word for word on a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import ROOT

PAGE = (ROOT / "docs/adding-a-method.md").read_text(encoding="utf-8")
PRESET = "distill_core/presets/smooth-cifar10.yaml"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a folder with a copy of the package, in which the page was followed."""
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "distill_core", tmp_path / "distill_core", ignore=skipped)
    for block in blocks("diff"):
        apply(block, tmp_path)
    assert f"`{PRESET}`" in PAGE
    (preset,) = blocks("yaml")
    (tmp_path / PRESET).write_text(preset, encoding="utf-8")
    return tmp_path


def apply(block: str, folder: Path) -> None:
    """Apply one hunk whose context occurs exactly once."""
    _, target, *lines = block.splitlines(keepends=True)
    file = folder / target.removeprefix("+++ b/").strip()
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    text = file.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{target.strip()}: {before!r} {text.count(before)} times"
    file.write_text(text.replace(before, after), encoding="utf-8")


def test_following_the_page_adds_a_term_that_decreases(copy: Path) -> None:
    (code,) = blocks("python")
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (
        len(re.findall(r"^step \d+: total variation \d\.\d{3}$", done.stdout, re.MULTILINE)) == 20
    )


def test_the_term_and_preset_of_the_page_do_not_exist_yet() -> None:
    assert not (ROOT / PRESET).exists()
    assert "total_variation" not in (ROOT / "distill_core/config/terms.py").read_text()
