"""The processes that share one training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """This process among all processes of one training."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> DistributedContext:
        """Return this process's place in the initialised process group, or the only one."""
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            return cls()
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())

    @property
    def is_main(self) -> bool:
        """Return whether this process writes and judges."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return this process's part of a batch of `count` images."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def broadcast(self, decide: Callable[[], T]) -> T:
        """Return what the first process decides; the others do not ask, they are told.

        What stands in a store can change between two reads. Processes that read for themselves
        could go different ways, and would wait for each other for ever. All must call this; if the
        first one raises, whoever runs the group has to end the others.

        Args:
            decide: called in the first process only; its value must pickle.
        """
        if self.size == 1:
            return decide()
        told: list[Any] = [decide() if self.is_main else None]
        torch.distributed.broadcast_object_list(told, src=0)
        value: T = told[0]
        return value

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model with averaged gradients over processes, or as it is when alone."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def sync_gradients(self, model: nn.Module, *, now: bool) -> AbstractContextManager[None]:
        """Return a context for one backward pass of a wrapped model that averages now, or later.

        Processes must average equally often, however many micro-batches each of them has.
        """
        if now or not isinstance(model, DistributedDataParallel):
            return nullcontext()
        return model.no_sync()
