"""Cheap checks of a run, before anything is written and before expensive work.

`run`, `resume`, `redistill`, their flows and every ``--dry-run`` make the same checks, and report
every problem at once. A check reads names, descriptions and headers, at most one list of a folder
and a sample of labels, and no image; it writes nothing.
"""

from __future__ import annotations

from distill_core.config.addresses import check_config
from distill_core.config.data import WITHOUT_PATH
from distill_core.config.schema import RunConfig
from distill_core.errors import DistillError, Problems
from distill_core.storage.store import Store
from flows.runs.checks.dataset import check_dataset, check_labels_of_splits
from flows.runs.checks.machine import check_device, check_disk, check_gangs, check_memory
from flows.runs.checks.request import Check, Request, make
from flows.runs.checks.teachers import check_model_names, check_teachers
from flows.status.status import run_status
from tasks.execution import Execution
from tasks.run import Run, check_same
from tasks.series import previous_index
from tasks.stages.inputs import dataset_of

OF_THE_INPUT: tuple[Check, ...] = (
    check_model_names,
    check_dataset,
    check_labels_of_splits,
    check_teachers,
)
CHECKS: tuple[Check, ...] = (
    *OF_THE_INPUT,
    check_device,
    check_gangs,
    check_memory,
    check_disk,
)

__all__ = ["CHECKS", "Request", "check", "check_request", "problems"]


def check(run: Run, execution: Execution) -> None:
    """Check a run that is to be started, registered or not; a complete one needs nothing.

    Raises:
        ConfigError: credentials in the config, a name that belongs to another config, a missing
            teacher, or a device, memory or disk that does not exist.
        DataError: the dataset is missing, or has other classes or labels than the config.
        StorageError: the store or the dataset cannot be read.
        Problems: several of these.
    """
    check_config(run.config)
    check_same(run)
    status = run_status(run)
    if status.complete:
        return
    before = previous_index(run)
    complete = frozenset(each.stage.kind for each in status.stages if each.complete)
    check_request(
        Request(
            run.config,
            execution,
            run.store,
            known=() if before is None else before.classes,
            complete=complete,
            dataset=dataset_of(run) if "ingest" in complete else None,
        )
    )


def check_request(request: Request) -> None:
    """Make every check of a run that is not complete; see `check`."""
    make(CHECKS, request)


def problems(config: RunConfig, execution: Execution) -> list[str]:
    """Return the reasons for which a new run would be refused, whatever the machine is.

    A dataset without a path is none of them: presets have no path.
    """
    request = Request(config, execution, Store(execution.store))
    without_data = config.data.path is None and config.data.format not in WITHOUT_PATH
    try:
        make((check_model_names, check_teachers) if without_data else OF_THE_INPUT, request)
    except Problems as several:
        return list(map(str, several.args))
    except DistillError as error:
        return [str(error)]
    return []
