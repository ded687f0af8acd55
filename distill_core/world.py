"""The processes that share one training."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, slots=True)
class World:
    """This process among all processes of one training."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """Return this process's place in the initialised process group, or the only one."""
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            return cls()
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())

    @property
    def first(self) -> bool:
        """Return whether this process writes and judges."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return this process's part of a batch of `count` images."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model with averaged gradients over processes, or as it is when alone."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def exchange(self, model: nn.Module, *, now: bool) -> AbstractContextManager[None]:
        """Return a context for one backward pass of a wrapped model that averages now, or later.

        Processes must average equally often, however many micro-batches each of them has.
        """
        if now or not isinstance(model, DistributedDataParallel):
            return nullcontext()
        return model.no_sync()
