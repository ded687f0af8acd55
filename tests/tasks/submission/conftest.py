"""A Jobs API that a test makes up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.jobs_server import JobsServer, jobs_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobsServer]:
    """Serve one without jobs, which wants no token."""
    with jobs_server(monkeypatch) as made:
        yield made
