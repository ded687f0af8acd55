"""Facts about the real images of a run that decide how much memory its stages need."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from distill_core.data.decoding.processes import default_decoders
from tasks.execution import Execution
from tasks.pools import device
from tasks.pools.device import NodeMemory

# Training images up to this limit stay in memory, or up to this part of a worker's memory; see
# `distill_core.training.streaming`.
RESIDENT, RESIDENT_SHARE = "DISTILL_RESIDENT_BYTES", 4
ImageCounts = tuple[int | None, int | None, int | None]  # train, test, largest class of train


@dataclass(frozen=True)
class RealData:
    """The real images of a run and how its processes read them."""

    train: int | None = None  # images; None: not known
    test: int | None = None
    largest_class: int | None = None  # training images of the largest class
    decoders: int = 1  # processes that decode for one worker
    resident: float = math.inf  # bytes up to which a training split stays in memory

    def of_a_class(self, classes: int) -> int | None:
        """Return the training images of the largest class, as far as they are known."""
        if self.largest_class is not None or self.train is None:
            return self.largest_class
        return -(-self.train // max(classes, 1))


def real_data(execution: Execution, counts: ImageCounts) -> RealData:
    """Return the numbers of real images as far as they are known, and how processes read them.

    Args:
        execution: decides how many workers share a node, and its GPU.
        counts: training images, test images, and training images of the largest class.
    """
    (train, test, largest), have = counts, device.node_memory(execution)
    workers, limit = 1 if have is None else have.workers, os.environ.get(RESIDENT, "")
    resident = float(limit) if limit.isdecimal() else _resident(execution, have)
    here = have is not None and have.fixed  # else its workers get as many CPUs as they reserve
    decoders = default_decoders() // workers if here else int(execution.num_cpus)
    return RealData(train, test, largest, decoders=max(1, decoders), resident=resident)


def _resident(execution: Execution, have: NodeMemory | None) -> float:
    """Return the bytes of training images that a worker keeps, on its node and on its GPU."""
    shares = [] if have is None else [have.host / have.workers]
    if (gpu := device.gpu_memory(execution)) is not None:
        shares.append(gpu / device.gpu_workers(execution))
    return min(shares, default=math.inf) / RESIDENT_SHARE
