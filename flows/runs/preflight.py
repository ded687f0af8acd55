"""Cheap checks of a run, before anything is written and before expensive work.

`run`, `resume`, `redistill`, their flows and every ``--dry-run`` make the same checks. A check
reads names and descriptions, at most one list of a folder, and no image; it writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from distill_core.config.addresses import check_config
from distill_core.config.schema import RunConfig
from distill_core.data.checks import check_classes
from distill_core.data.index import number_classes
from distill_core.data.readers.formats import open_reader
from distill_core.errors import DistillError
from distill_core.sharding import ClassEntry
from distill_core.storage.store import Store
from flows.status.status import run_status
from tasks.execution import Execution
from tasks.pools import device
from tasks.run import Run, check_same
from tasks.series import previous_index
from tasks.stages.squeeze import stored_teacher
from tasks.stages.table import row_of, stages_of


@dataclass(frozen=True)
class Request:
    """A run that is not complete, or one that does not exist yet."""

    config: RunConfig
    execution: Execution
    store: Store
    known: tuple[ClassEntry, ...] = ()  # classes of the version before
    complete: frozenset[str] = frozenset()  # kinds of stages


def check_dataset(request: Request) -> None:
    """Check that the dataset has both splits and as many classes as the config."""
    if "ingest" in request.complete:
        return
    reader = open_reader(request.config.data)
    names = reader.classes()
    check_classes(request.config.data, names, number_classes(names, request.known))
    reader.classes("test")


def check_teachers(request: Request) -> None:
    """Check that teachers that are not trained here exist, and fit by their headers."""
    if "squeeze" in request.complete:
        return
    squeeze, num_classes = request.config.squeeze, request.config.data.num_classes
    for member in (squeeze.member(number) for number in range(1 + len(squeeze.pool))):
        if member.checkpoint is not None:
            from distill_core.models.checkpoint_check import check_checkpoint  # imports torch

            check_checkpoint(member.checkpoint, member.model, num_classes=num_classes)
        for key in (member.reuse, member.start):
            if key is not None:
                stored_teacher(request.store, key)


def check_device(request: Request) -> None:
    """Check that this machine has the device, if the workers run on it."""
    device.check_device(request.execution)


def check_gangs(request: Request) -> None:
    """Check that each process of a training gets a GPU of its own."""
    for stage in stages_of(request.config):
        if stage.kind not in request.complete:
            processes = row_of(stage).processes(request.config)
            device.check_gang(request.execution, processes, stage=str(stage))


CHECKS: tuple[Callable[[Request], None], ...] = (
    check_dataset,
    check_teachers,
    check_device,
    check_gangs,
)


def check(run: Run, execution: Execution) -> None:
    """Check a run that is to be started, registered or not; a complete one needs nothing.

    Raises:
        ConfigError: credentials in the config, a name that belongs to another config, a missing
            teacher, or a device that does not exist.
        DataError: the dataset is missing, or has other classes than the config.
        StorageError: the store or the dataset cannot be read.
    """
    check_config(run.config)
    check_same(run)
    status = run_status(run)
    if status.complete:
        return
    before = previous_index(run)
    check_request(
        Request(
            run.config,
            execution,
            run.store,
            known=() if before is None else before.classes,
            complete=frozenset(each.stage.kind for each in status.stages if each.complete),
        )
    )


def check_request(request: Request) -> None:
    """Make every check of a run that is not complete; see `check`."""
    for each in CHECKS:
        each(request)


def problems(config: RunConfig, execution: Execution) -> list[str]:
    """Return the reasons for which a new run would be refused, whatever the machine is.

    A dataset without a path is none of them: presets have no path.
    """
    request = Request(config, execution, Store(execution.store))
    without_data = config.data.path is None and config.data.format in ("imagefolder", "parquet")
    checks = (check_teachers,) if without_data else (check_dataset, check_teachers)
    found: list[str] = []
    for each in checks:
        try:
            each(request)
        except DistillError as error:
            found.append(str(error))
    return found
