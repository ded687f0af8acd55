"""The class lists of timm for tests, and an environment without timm."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from distill_core.label_spaces import lists


def need_timm() -> None:
    """Skip a test where the class lists of ImageNet are not installed."""
    if find_spec("timm") is None:
        pytest.skip("timm is not installed, which has the class lists of ImageNet")


def without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide timm, and forget the lists that were read before."""

    def find(name: str) -> None:
        return None

    monkeypatch.setattr(lists, "find_spec", find)
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the lists that were read before, now and after the test."""
    for name in ("_class_ids", "_wordnet_words"):
        read = getattr(lists, name)
        monkeypatch.setattr(lists, name, read.__wrapped__)
