"""The files of a local dataset whose bytes are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from distill_core.data.files.local import ListedFile
from distill_core.data.folders import LocalFolder


def note_reads(monkeypatch: pytest.MonkeyPatch, ending: str = "") -> list[str]:
    """Return a list that receives the path of every file that is read whole, from now on.

    Args:
        monkeypatch: ends it.
        ending: of the names that are noted.
    """
    read, read_listed, seen = LocalFolder.read, LocalFolder.read_listed, list[str]()

    def noted(self: LocalFolder, paths: Sequence[str]) -> list[bytes]:
        seen.extend(path for path in paths if path.endswith(ending))
        return read(self, paths)

    def noted_listed(self: LocalFolder, files: Sequence[ListedFile]) -> Any:
        seen.extend(file.path for file in files if file.path.endswith(ending))
        return read_listed(self, files)

    monkeypatch.setattr(LocalFolder, "read", noted)
    monkeypatch.setattr(LocalFolder, "read_listed", noted_listed)
    return seen
