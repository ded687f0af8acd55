"""The paths of the golden files."""

from __future__ import annotations

from pathlib import Path

from tests.support.repository import ROOT

FOLDER = ROOT / "tests" / "golden"


def number_file(name: str) -> Path:
    """Return the file of a stage's golden numbers."""
    return FOLDER / f"{name}.json"


def preset_file(name: str) -> Path:
    """Return the file of a preset's resolved tree."""
    return FOLDER / "presets" / f"{name}.json"
