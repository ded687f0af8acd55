"""The advice of a stage, for errors whose cause is, or may be, that memory ran out.

A device or a host that is full raises an `OutOfMemoryError`; a process that the kernel or Ray ended
is lost, and only the text of the loss states memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from distill_core.errors import ClusterError, OutOfMemoryError
from tasks.pools.failures import Failure
from tasks.stages.names import StageId
from tasks.stages.table import row_of

MORE = (
    "or give each worker more: start fewer of them on a node (--workers, --num-cpus, --memory-gb), "
    "give each a larger part of a GPU (--num-gpus), or use larger nodes or GPUs."
)


def advised(failed: Mapping[str, Failure], stage: StageId) -> dict[str, Failure]:
    """Return the failures of shards, with advice where memory ran out.

    Args:
        failed: by shard.
        stage: of the shards.
    """
    return {
        shard: replace(failure, error=_with_advice(failure.error, stage))
        for shard, failure in failed.items()
    }


@contextmanager
def advising(stage: StageId) -> Iterator[None]:
    """Add advice to the error of a stage that ends in the block, if its workers lacked memory."""
    try:
        yield
    except (ClusterError, OutOfMemoryError) as error:
        with_advice = _with_advice(error, stage)
        if with_advice is error:
            raise
        raise with_advice from error.__cause__


def _with_advice(error: Exception, stage: StageId) -> Exception:
    text = str(error)
    if isinstance(error, OutOfMemoryError):
        return type(error)(f"{text} {_advice(stage)}")
    if isinstance(error, ClusterError) and "memory" in text.lower():
        return type(error)(f"{text} If memory ran out: {_advice(stage)}")
    return error


def _advice(stage: StageId) -> str:
    return f"{row_of(stage).less_memory}, {MORE}"
