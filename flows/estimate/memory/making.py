"""Memory of recover and relabel: the stages that make images and their labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from distill_core.config.schema import RunConfig
from distill_core.sharding import ClassShard
from flows.estimate.memory.footprints import Footprint
from flows.estimate.memory.parts import (
    ACTIVATIONS,
    COPIES,
    CROP_BYTES,
    FORWARD_BATCH,
    GRADIENTS,
    LEAST,
    OPTIMISER,
    Memory,
    Part,
    footprints,
    forward,
    imports,
    weights,
)
from flows.estimate.memory.real_data import RealData

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


def recover(
    config: RunConfig, shards: Sequence[ClassShard], launch: Launch, real: RealData = RealData()
) -> Memory | None:
    """Return the memory of the launch that has the most images; None: a network is not known.

    Starts are chosen before the steps, which then use the same memory again.
    """
    models = [config.squeeze.member(number).model for number in config.recover.teachers]
    if not (networks := footprints(config, models)):
        return None
    size, optimised = weights(networks, config.precision), config.recover.steps > 0
    extra = OPTIMISER if optimised else 0.0
    loaded = Part("its networks", extra + COPIES * size, LEAST * size)
    steps = _steps(config, networks, shards, launch) if optimised else _kept(config, shards)
    starts = [
        replace(part, size=max(0.0, part.size - optimised * steps.size))
        for part in _starts(config, networks, real)
    ]
    parts = (imports(), loaded, steps, *starts)
    return Memory("recover", parts, settings="recover.batch_size or data.side")


def _steps(
    config: RunConfig, networks: Sequence[Footprint], shards: Sequence[ClassShard], launch: Launch
) -> Part:
    """Return the activations of a launch.

    Every teacher that evaluates an image in a step keeps them until the backward pass.
    """
    area = config.data.side**2
    batches = max(len(shard.grids) for shard in shards)
    grids = [(shard.groups[group], indices) for shard in shards for group, indices in shard.grids]
    batch = max(len(classes) * len(indices) for classes, indices in grids)
    together = min(batches, launch.groups or max(1, launch.pixels // (batch * area)))
    scale = ACTIVATIONS[config.precision]
    kept = sorted(network.kept for network in networks)
    largest = GRADIENTS * max(network.largest for network in networks)
    passes = config.recover.passes
    return Part(
        f"the activations of {together * batch:,} images",
        scale * together * batch * area * (sum(kept[-passes:]) + largest),
        LEAST * scale * batch * area * sum(kept[:passes]),
    )


def _kept(config: RunConfig, shards: Sequence[ClassShard]) -> Part:
    """Return the images of a shard whose start is the result, and their copy in the file."""
    count = max(shard.num_images for shard in shards)
    return Part(f"{count:,} images, twice", 2.0 * count * 3 * config.data.side**2, place="host")


def _starts(config: RunConfig, networks: Sequence[Footprint], real: RealData) -> Iterator[Part]:
    """Yield what the choice of real images of one class needs, if the teacher judges them."""
    images, recovery = real.of_a_class(config.data.num_classes), config.recover
    if images is None:
        return
    if recovery.init == "mosaic" and recovery.mosaic is not None:
        crops = min(images, recovery.mosaic.images) * recovery.mosaic.crops
        yield Part(f"{crops:,} crops", crops * config.data.side**2 * CROP_BYTES)
    if recovery.init in ("mosaic", "herding", "k_center"):
        yield forward(networks, min(images, FORWARD_BATCH), config)


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
