"""Checks of the machines of a run: devices, memory and disk.

What is estimated is refused only where the smallest amount that a stage can do with is not there;
else it is a warning. The nodes of a cluster are known only once this process has joined it, and
larger ones may join later, so they are never a reason to refuse.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from flows import terminal, units
from flows.estimate.memory.making import Launch
from flows.estimate.memory.networks import checkpoint_bytes, network_bytes
from flows.estimate.memory.parts import Memory
from flows.estimate.memory.real_data import real_data
from flows.estimate.memory.stages import stage_memories
from flows.estimate.workload import plan_run
from flows.runs.checks.request import Request, make
from tasks.pools import device
from tasks.pools.device import NodeMemory
from tasks.stages.table import row_of, stages_of

UNCERTAIN = 2.0  # an estimate of stored bytes may be so many times too large


def check_device(request: Request) -> None:
    """Check that this machine has the device, if the workers run on it."""
    device.check_device(request.execution)


def check_gangs(request: Request) -> None:
    """Check that each process that a training cannot do without gets a GPU of its own."""
    for stage in stages_of(request.config):
        if stage.kind not in request.complete:
            row, processes = row_of(stage), row_of(stage).processes(request.config)
            least = 1 if row.fewer_processes else processes
            device.check_gang(request.execution, processes, least=least, stage=str(stage))


def check_memory(request: Request) -> None:
    """Check that a node has the memory that one process of a stage needs, stage by stage.

    Raises:
        ConfigError: a stage needs more than there is, however few of its parts are certain.
        Problems: this is so for several stages.
    """
    config, have = request.config, device.node_memory(request.execution)
    launch = Launch(request.execution.device, request.execution.groups)
    make(
        tuple(
            partial(_check_stage, memory=memory, have=have)
            for memory in stage_memories(
                config, launch, real_data(request.execution, request.real_images)
            )
            if memory.stage not in request.complete
        ),
        request,
    )


def check_joined_cluster(request: Request) -> None:
    """Warn about the memory of the nodes of a cluster that this process has joined."""
    execution = request.execution
    if execution.local or execution.ray_address is None or device.node_memory(execution) is None:
        return
    check_memory(request)


def check_disk(request: Request) -> None:
    """Check that the disk of a local store has room for what the stages of a run store.

    Raises:
        ConfigError: the whole disk is too small for them.
    """
    url = request.store.url
    if "://" in url or {"recover", "relabel"} & request.complete:
        return
    disk = shutil.disk_usage(_existing(Path(url)))
    config = request.config
    largest = len(config.image_sets) * distilled_bytes(config)
    if largest == 0:  # the number of classes is not known yet
        return
    networks = network_bytes(config) + checkpoint_bytes(config)
    if config.relabel.scheme == "online" and largest + networks < disk.free / UNCERTAIN:
        return
    plan = plan_run(config)
    size = plan.image_bytes + plan.label_bytes + networks
    problem = (
        f"{url}: images and labels of the run need about {units.size(size)} with its networks "
        f"(recover {units.size(plan.image_bytes)}, relabel {units.size(plan.label_bytes)}, squeeze "
        f"and posttrain {units.size(networks)} with checkpoints), the disk has "
        f"{units.size(disk.total)}, of which {units.size(disk.free)} are free. Use another store, "
        "or lower ipc or relabel.views."
    )
    if size > UNCERTAIN * disk.total:
        raise ConfigError(problem)
    if size > disk.free:
        terminal.warn(problem)


def distilled_bytes(config: RunConfig) -> int:
    """Return the bytes of all distilled images of one set in memory."""
    return config.data.num_classes * config.ipc * 3 * config.data.side**2


def _check_stage(request: Request, *, memory: Memory, have: NodeMemory | None) -> None:
    """Check the memory of one stage, on the GPU and on the host."""
    execution, on_host = request.execution, memory
    if execution.device == "cuda":
        on_host = memory.on("host")
        if (gpu := device.gpu_memory(execution)) is not None:
            there = Place("the GPU", gpu, device.gpu_workers(execution), fixed=True)
            _compare(memory.on("device"), there)
    if have is not None:
        workers = max(have.workers, memory.processes)
        _compare(on_host, Place("a node", have.host, workers, fixed=have.fixed))


@dataclass(frozen=True)
class Place:
    """Some memory, and the processes of a stage that share it."""

    name: str
    size: float  # bytes
    workers: int
    fixed: bool  # no larger one can join later


def _compare(memory: Memory, place: Place) -> None:
    """Refuse what is certainly more than there is; warn about an estimate that is.

    Raises:
        ConfigError: what one process needs at least does not fit.
    """
    shared = f" for {place.workers} workers" if place.workers > 1 else ""
    problem = (
        f"{memory.stage}: a process needs about {units.size(memory.needed)} ({memory.what}), but "
        f"{place.name} has {units.size(place.size)}{shared}. Use fewer workers or nodes with more "
        f"memory, or lower {memory.settings}."
    )
    if memory.least > place.size and place.fixed:
        raise ConfigError(problem)
    if memory.of_node(place.workers) > place.size:
        terminal.warn(problem)


def _existing(path: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    path = path.expanduser().absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
