"""Memory of recover and relabel: the stages that make images and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from distill_core.config.schema import RunConfig
from distill_core.sharding import ClassShard
from flows.estimate.memory.parts import (
    ACTIVATIONS,
    COPIES,
    FORWARD_BATCH,
    GRADIENTS,
    LEAST,
    OPTIMISER,
    Memory,
    Part,
    footprints,
    imports,
    weights,
)

LAUNCH_PIXELS = {"cpu": 100 * 32**2, "cuda": 400 * 32**2}  # see `distill_core.recover.batching`
VIEW_BYTES = 60  # per pixel of a view while it is rendered


@dataclass(frozen=True)
class Launch:
    """The batches that recover puts into one launch."""

    device: Literal["cpu", "cuda"] = "cpu"
    groups: int | None = None  # batches; None: as many as fill the device

    @property
    def pixels(self) -> int:
        """Return the pixels up to which batches are put together."""
        return LAUNCH_PIXELS[self.device]


def recover(config: RunConfig, shards: Sequence[ClassShard], launch: Launch) -> Memory | None:
    """Return the memory of the launch that has the most images; None: a network is not known.

    Every teacher that evaluates an image in a step keeps its activations until the backward pass.
    """
    models = [config.squeeze.member(number).model for number in config.recover.teachers]
    networks = footprints(config, models) if config.recover.steps > 0 else []
    if not networks:
        return None
    area = config.data.side**2
    batches = max(len(shard.grids) for shard in shards)
    grids = [(shard.groups[group], indices) for shard in shards for group, indices in shard.grids]
    batch = max(len(classes) * len(indices) for classes, indices in grids)
    together = min(batches, launch.groups or max(1, launch.pixels // (batch * area)))
    scale = ACTIVATIONS[config.precision]
    kept = sorted(network.kept for network in networks)
    largest = GRADIENTS * max(network.largest for network in networks)
    passes = config.recover.passes
    size = weights(networks, config.precision)
    return Memory(
        "recover",
        (
            imports(),
            Part("its networks", OPTIMISER + COPIES * size, LEAST * size),
            Part(
                f"the activations of {together * batch:,} images",
                scale * together * batch * area * (sum(kept[-passes:]) + largest),
                LEAST * scale * batch * area * sum(kept[:passes]),
            ),
        ),
        settings="recover.batch_size or data.side",
    )


def relabel(config: RunConfig, shards: Sequence[ClassShard]) -> Memory | None:
    """Return the memory of a forward pass over views of the largest image shard.

    Returns:
        None: a network is not known.
    """
    models = [config.squeeze.member(number).model for number in config.relabel.teachers]
    networks = footprints(config, models)
    if not networks:
        return None
    area = config.data.side**2
    images = max(shard.num_images for shard in shards)
    batch = min(images, config.relabel.batch_statistics or FORWARD_BATCH)
    scale = ACTIVATIONS[config.precision]
    size, stored = weights(networks, config.precision), images * area * 3
    if config.relabel.scheme == "online":
        batch = 0  # views are drawn, and labelled where a student sees them
    live = scale * max(network.live * network.largest for network in networks)
    return Memory(
        "relabel",
        (
            imports(),
            Part("its networks", COPIES * size, LEAST * size),
            Part(f"{images:,} images", stored, LEAST * stored),
            Part(f"the activations of {batch:,} views", batch * area * (live + VIEW_BYTES)),
        ),
        settings="recover.shard_classes or recover.ipc_range",
    )
