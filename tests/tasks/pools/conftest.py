"""One small Ray cluster for all tests of this folder; its GPUs are not real."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tasks.pools.ray_cluster import started


@pytest.fixture(scope="package")
def ray_cluster() -> Iterator[None]:
    """Start Ray once. It ends with this folder: later tests start their own."""
    with started(num_cpus=2, num_gpus=2):
        yield
