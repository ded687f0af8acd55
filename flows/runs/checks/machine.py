"""Checks of the machines of a run: devices, memory and disk.

What is estimated is refused only where the smallest amount that a stage can do with is not there;
else it is a warning. The nodes of a cluster are known only once this process has joined it, and
larger ones may join later, so they are never a reason to refuse.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from distill_core.label_spaces.facts import SPACES
from flows import terminal, units
from flows.estimate.footprints import network_bytes
from flows.estimate.memory import BASE, Launch, Memory, stage_memories
from flows.estimate.workload import plan_run
from flows.runs.checks.request import Request, make
from tasks.execution import Execution
from tasks.pools import device
from tasks.pools.device import NodeMemory
from tasks.run import Run
from tasks.stages.table import row_of, stages_of

UNCERTAIN = 2.0  # an estimate of stored bytes may be so many times too large


def check_device(request: Request) -> None:
    """Check that this machine has the device, if the workers run on it."""
    device.check_device(request.execution)


def check_gangs(request: Request) -> None:
    """Check that each process of a training gets a GPU of its own."""
    for stage in stages_of(request.config):
        if stage.kind not in request.complete:
            processes = row_of(stage).processes(request.config)
            device.check_gang(request.execution, processes, stage=str(stage))


def check_memory(request: Request) -> None:
    """Check that a node has the memory that one process of a stage needs, stage by stage.

    Raises:
        ConfigError: the images of post-train do not fit, or not even half of what a stage must hold
            at once.
        Problems: this is so for several stages.
    """
    config, have = request.config, device.node_memory(request.execution)
    distilled, real = distilled_bytes(config), test_bytes(config)
    if have is not None and distilled > have.host and "posttrain" not in request.complete:
        problem = (
            f"posttrain: the workers of a node hold {units.size(distilled)} of images in memory "
            f"together, but a node has {units.size(have.host)}. Use nodes with more memory, or "
            "lower ipc or data.side."
        )
        if have.fixed:
            raise ConfigError(problem)
        terminal.warn(problem)
    if have is not None and real is not None and "squeeze" not in request.complete:
        share = have.host / have.workers
        if real > share:
            terminal.warn(
                f"squeeze: a process holds {units.size(real)} of images in memory, but its share "
                f"is {units.size(share)}. Use fewer workers or nodes with more memory, or lower "
                "data.side."
            )
    launch = Launch(request.execution.device, request.execution.groups)
    make(
        tuple(
            partial(_check_stage, memory=memory, have=have)
            for memory in stage_memories(config, launch)
            if memory.stage not in request.complete
        ),
        request,
    )


def check_joined_cluster(run: Run, execution: Execution) -> None:
    """Warn about the memory of the nodes of a cluster that this process has joined."""
    if execution.local or execution.ray_address is None or device.node_memory(execution) is None:
        return
    check_memory(Request(run.config, execution, run.store))


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
    networks = network_bytes(config)
    if config.relabel.scheme == "online" and largest + networks < disk.free / UNCERTAIN:
        return
    plan = plan_run(config)
    size = plan.image_bytes + plan.label_bytes + networks
    problem = (
        f"{url}: images and labels of the run need about {units.size(size)} with its networks "
        f"(recover {units.size(plan.image_bytes)}, relabel {units.size(plan.label_bytes)}, squeeze "
        f"and posttrain {units.size(networks)}), the disk has {units.size(disk.total)}, of which "
        f"{units.size(disk.free)} are free. Use another store, or lower ipc or relabel.views."
    )
    if size > UNCERTAIN * disk.total:
        raise ConfigError(problem)
    if size > disk.free:
        terminal.warn(problem)


def distilled_bytes(config: RunConfig) -> int:
    """Return the bytes of all distilled images of one set in memory."""
    return config.data.num_classes * config.ipc * 3 * config.data.side**2


def test_bytes(config: RunConfig) -> int | None:
    """Return the bytes of the test split of a known label space in memory; None: not known."""
    space = None if config.data.label_space is None else SPACES[config.data.label_space]
    if space is None or space.images is None:
        return None
    return space.images[1] * 3 * config.data.side**2


def _check_stage(request: Request, *, memory: Memory, have: NodeMemory | None) -> None:
    """Refuse a stage whose least memory is more than there is; warn about an estimate that is.

    Networks and activations are on the GPU if the workers use one of this machine.
    """
    if (gpu := device.gpu_memory(request.execution)) is not None:
        place, there, workers, fixed = "the GPU", gpu, 1, True
        needed = memory.needed - BASE
    elif request.execution.device == "cuda" or have is None:
        return  # on GPUs of other machines, or on nodes that are not known yet
    else:
        place, there, workers, fixed = "a node", have.host, have.workers, have.fixed
        needed = memory.needed
    shared = f" for {workers} workers" if workers > 1 else ""
    problem = (
        f"{memory.stage}: a process needs about {units.size(needed)} for its networks and "
        f"{memory.what}, but {place} has {units.size(there)}{shared}. Use fewer workers or nodes "
        f"with more memory, or lower {memory.settings}."
    )
    if memory.least > there and fixed:
        raise ConfigError(problem)
    if workers * needed > there:
        terminal.warn(problem)


def _existing(path: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    path = path.expanduser().absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
