"""A Jobs API that a test makes up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.jobs_server import JobsServer, jobs_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobsServer]:
    """Serve one without jobs, which wants no token."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_JOB_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    with jobs_server() as made:
        yield made
