"""Where the golden files stand."""

from __future__ import annotations

from pathlib import Path

from tests.support.repository import ROOT

FOLDER = ROOT / "tests" / "golden"


def number_file(name: str) -> Path:
    """Return where a stage's golden numbers stand."""
    return FOLDER / f"{name}.json"


def preset_file(name: str) -> Path:
    """Return where a preset's resolved tree stands."""
    return FOLDER / "presets" / f"{name}.json"
