"""Orders for stand-ins, and the manifest of an undisturbed run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from distill_core.storage.manifest import Manifest
from tests.support.fault_runs import SHARDS, planned_run, recover
from tests.support.pipeline import manifest
from tests.support.stand_in import ORDERS, Notebook, Orders


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """Return the folder of orders, known to every process that is started from here on."""
    notebook = Notebook(tmp_path_factory.mktemp("orders"))
    notebook.order(Orders())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ORDERS, str(notebook.orders))
        yield notebook


@pytest.fixture
def no_faults(notebook: Notebook) -> None:
    """Order nothing, and forget what earlier tests noted."""
    notebook.order(Orders())
    notebook.forget()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, notebook: Notebook) -> Manifest:
    """Return the manifest of an undisturbed run, made in this process."""
    run = planned_run(str(tmp_path_factory.mktemp("undisturbed")), shards=SHARDS)
    recover(run, local=True)
    return manifest(run, "recover")
