"""The services of a deployment, once for all tests: PostgreSQL, Prefect, a worker, and Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import postgres
from tests.support.live_deployment import Deployment, deployed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and skip them where PostgreSQL is absent."""
    absent = pytest.mark.skip(reason=f"no PostgreSQL; run `sudo {postgres.SCRIPT} install`")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.deploy)
            if not postgres.is_installed():
                item.add_marker(absent)


@pytest.fixture(scope="package")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Set everything up."""
    with deployed(tmp_path_factory.mktemp("deployment")) as made:
        yield made
