"""Set-up of every test: telemetry off, the command line as a fixture, and the path to real data."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.cli import distill

__all__ = ["distill"]

os.environ.update(
    DO_NOT_TRACK="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    RAY_USAGE_STATS_ENABLED="0",
)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell ignores it for what it starts in the background; children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

TOGETHER = ("tests/prefect/", "tests/deployment/")  # folders whose tests share one server

SIBLING = Path(__file__).parents[2] / "shared" / "data"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file, or of a folder with one server, in one of parallel processes."""
    for item in items:
        file = item.nodeid.partition("::")[0]
        folder = next((one for one in TOGETHER if file.startswith(one)), file)
        item.add_marker(pytest.mark.xdist_group(folder))


@pytest.fixture(scope="session")
def imagenet_samples() -> Path:
    """Return a tar of 100 photographs of ImageNet: every tenth class, one image each, sorted."""
    folder = Path(os.environ.get("DISTILL_TEST_DATA", SIBLING)) / "imagenet-samples-100"
    path = folder / "samples.tar"
    if not path.is_file():
        pytest.skip(f"no {path}; set DISTILL_TEST_DATA to run this test")
    return path


@pytest.fixture(scope="session")
def cifar10_path() -> Path:
    """Return the folder of CIFAR-10 as Parquet; DISTILL_TEST_DATA names another parent folder."""
    path = Path(os.environ.get("DISTILL_TEST_DATA", SIBLING)) / "cifar10"
    if not (path / "train.parquet").is_file():
        pytest.skip(f"no {path}/train.parquet; set DISTILL_TEST_DATA to run this test")
    return path
