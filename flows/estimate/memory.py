"""Memory that one process of a stage needs, from the config alone.

Source: peak resident memory of the stages on a CPU, see docs/performance.md; what is measured is
within 0.7 to 1.5 times the estimate. A GPU holds the same without `BASE`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from distill_core.config.fields import Precision
from distill_core.config.schema import RunConfig
from distill_core.sharding import ClassShard
from flows.estimate.footprints import Footprint, footprint
from flows.estimate.workload import class_shards

BASE = 700e6  # bytes of a process that has imported torch and Ray
OPTIMISER = 130e6  # more, once it has computed gradients
FORWARD_BATCH = 100  # images of a forward pass over many, see `distill_core.models.teacher`
LAUNCH_PIXELS = {"cpu": 100 * 32**2, "cuda": 400 * 32**2}  # see `distill_core.recover.batching`
GRADIENTS = 2  # largest activations of which a backward pass holds the gradients
FORWARD = 3  # largest activations that a forward pass without gradients holds
COPIES = 3  # of the weights, while a network is read from its file
VIEW_BYTES = 60  # per pixel of a view while it is rendered
NUMBER_BYTES = {"float32": 4, "bfloat16": 4, "float64": 8}  # weights stay wide under bfloat16
ACTIVATIONS = {"float32": 1.0, "bfloat16": 0.5, "float64": 2.0}  # relative to float32
LEAST = 0.5  # of what must be held at once; below it, the estimate would have to be twice too high


@dataclass(frozen=True)
class Memory:
    """The memory of one process of a stage."""

    stage: str
    needed: float  # bytes, an estimate
    least: float  # bytes below which the stage cannot work, whatever the estimate's error
    what: str  # it holds beside its networks, for messages
    settings: str  # that make it smaller


@dataclass(frozen=True)
class Launch:
    """The batches that recover puts into one launch."""

    device: Literal["cpu", "cuda"] = "cpu"
    groups: int | None = None  # batches; None: as many as fill the device

    @property
    def pixels(self) -> int:
        """Return the pixels up to which batches are put together."""
        return LAUNCH_PIXELS[self.device]


def stage_memories(config: RunConfig, launch: Launch = Launch()) -> Iterator[Memory]:
    """Yield the memory of the stages whose networks are known.

    Args:
        config: of the run.
        launch: of recover.
    """
    if not (shards := class_shards(config)):
        return  # the number of classes is not known yet
    if config.recover.steps > 0 and (networks := _footprints(config, config.recover.teachers)):
        yield _recover(config, networks, shards, launch)
    if networks := _footprints(config, config.relabel.teachers):
        yield _relabel(config, networks, shards)


def _recover(
    config: RunConfig, networks: Sequence[Footprint], shards: Sequence[ClassShard], launch: Launch
) -> Memory:
    """Return the memory of the launch that has the most images, and of the largest single batch.

    Every teacher that evaluates an image in a step keeps its activations until the backward pass.
    """
    pixels = config.data.side**2
    batches = max(len(shard.grids) for shard in shards)
    grids = [(shard.groups[group], indices) for shard in shards for group, indices in shard.grids]
    batch = max(len(classes) * len(indices) for classes, indices in grids)
    together = min(batches, launch.groups or max(1, launch.pixels // (batch * pixels)))
    scale = ACTIVATIONS[config.precision]
    kept = sorted(network.kept for network in networks)
    largest = GRADIENTS * max(network.largest for network in networks)
    passes = config.recover.passes
    weights = _weights(networks, config.precision)
    images = together * batch * pixels
    return Memory(
        "recover",
        needed=BASE
        + OPTIMISER
        + COPIES * weights
        + scale * images * (sum(kept[-passes:]) + largest),
        least=LEAST * (weights + scale * batch * pixels * sum(kept[:passes])),
        what=f"the activations of {together * batch:,} images",
        settings="recover.batch_size or data.side",
    )


def _relabel(
    config: RunConfig, networks: Sequence[Footprint], shards: Sequence[ClassShard]
) -> Memory:
    """Return the memory of a forward pass over views of the largest image shard."""
    pixels = config.data.side**2
    images = max(shard.num_images for shard in shards)
    batch = min(images, config.relabel.batch_statistics or FORWARD_BATCH)
    scale = ACTIVATIONS[config.precision]
    weights, stored = _weights(networks, config.precision), images * pixels * 3
    if config.relabel.scheme == "online":
        batch = 0  # views are drawn, and labelled where a student sees them
    largest = FORWARD * scale * max(network.largest for network in networks)
    return Memory(
        "relabel",
        needed=BASE + COPIES * weights + stored + batch * pixels * (largest + VIEW_BYTES),
        least=LEAST * (weights + stored),
        what=f"{images:,} images and the activations of {batch:,} views",
        settings="recover.shard_classes or recover.ipc_range",
    )


def _footprints(config: RunConfig, teachers: Sequence[int]) -> list[Footprint]:
    """Return the sizes of some teachers; none if one of them is not known."""
    classes = config.data.num_classes
    found = [footprint(config.squeeze.member(number).model, classes) for number in teachers]
    known = [network for network in found if network is not None]
    return known if len(known) == len(found) else []


def _weights(networks: Sequence[Footprint], precision: Precision) -> float:
    return sum(network.numbers for network in networks) * 1e6 * NUMBER_BYTES[precision]
