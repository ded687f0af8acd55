"""The fixture that makes runs whose shards have a few bytes each."""

from __future__ import annotations

from tests.support.planned import workshop

__all__ = ["workshop"]
