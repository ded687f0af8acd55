"""Fixtures of the fake GPU: one thread, as for all that is tiny."""

from __future__ import annotations

from tests.support.threads import one_thread, one_thread_for_fixtures

__all__ = ["one_thread", "one_thread_for_fixtures"]
