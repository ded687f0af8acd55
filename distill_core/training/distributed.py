"""The processes of one training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        """Return this process's rank in the process group, or that of a single process."""
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            return cls()
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())

    @property
    def is_main(self) -> bool:
        """Return whether this process writes results."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return this process's part of a batch of `count` images."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def parts(self, count: int) -> range:
        """Return the numbers of this process's parts of a batch that has `count` parts."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def broadcast(self, decide: Callable[[], T]) -> T:
        """Return the decision of the first process in every process.

        A store can change between two reads. Processes that read it separately could decide
        differently and then wait for each other forever. All of them must call this; if the first
        one raises, the caller of the group has to end the others.

        Args:
            decide: called in the first process only; its value must be picklable.
        """
        if self.size == 1:
            return decide()
        values: list[Any] = [decide() if self.is_main else None]
        torch.distributed.broadcast_object_list(values, src=0)
        value: T = values[0]
        return value

    def gather(self, values: Sequence[T]) -> list[T]:
        """Return the values of all processes, in the order of their ranks; all must call this."""
        if self.size == 1:
            return list(values)
        by_rank: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(by_rank, list(values))
        return [value for of_rank in by_rank for value in of_rank]

    def sum(self, counts: Sequence[int]) -> tuple[int, ...]:
        """Return the sums of some numbers over all processes; all of them must call this."""
        if self.size == 1:
            return tuple(counts)
        total = torch.tensor(counts, dtype=torch.int64)
        torch.distributed.all_reduce(total)
        return tuple(total.tolist())

    def share_buffers(self, model: nn.Module) -> None:
        """Copy the buffers of the first process to all; all of them must call this.

        Parameters are equal anyway. Running statistics are not, until the next step of training
        copies those of the first process.
        """
        if self.size > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model with gradients averaged over processes, or itself for a single one."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def sync_gradients(self, model: nn.Module, *, now: bool) -> AbstractContextManager[None]:
        """Return a context for one backward pass that averages gradients now or defers it.

        Processes must average equally often, whatever their numbers of micro-batches.
        """
        if now or not isinstance(model, DistributedDataParallel):
            return nullcontext()
        return model.no_sync()
