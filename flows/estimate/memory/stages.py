"""Memory that one process of each stage needs, from the config and the size of the dataset."""

from __future__ import annotations

from collections.abc import Iterator

from distill_core.config.schema import RunConfig
from flows.estimate.memory import making, reading, training
from flows.estimate.memory.making import Launch
from flows.estimate.memory.parts import Memory
from flows.estimate.memory.real_data import RealData
from flows.estimate.workload import class_shards


def stage_memories(
    config: RunConfig, launch: Launch = Launch(), real: RealData = RealData()
) -> Iterator[Memory]:
    """Yield the memory of the stages whose networks and images are known, in their order.

    Args:
        config: of the run.
        launch: of recover.
        real: the real images.
    """
    if not (shards := class_shards(config)):
        return  # the number of classes is not known yet
    estimates = (
        reading.ingest(),
        reading.pack(config),
        training.squeeze(config, real),
        reading.statistics(config, real),
        reading.select(config, real),
        making.recover(config, shards, launch, real),
        making.relabel(config, shards),
        training.posttrain(config, real),
        reading.validate(config, real),
    )
    yield from (memory for memory in estimates if memory is not None)
