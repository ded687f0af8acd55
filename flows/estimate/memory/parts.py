"""The parts of the memory of a process, and the constants of their estimates.

Source: peak resident memory of the stages on a CPU, see docs/performance.md; what is measured is
within 0.7 to 1.5 times the estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from distill_core.config.fields import Precision
from distill_core.config.schema import RunConfig
from distill_core.config.training import ModelConfig
from flows import units
from flows.estimate.memory.footprints import Footprint
from flows.estimate.memory.networks import footprint

Place = Literal["device", "host", "both"]

BASE = 700e6  # bytes of a process that has imported torch and Ray
OPTIMISER = 130e6  # more, once it has computed gradients
TRAINING = 300e6  # more, once it has trained
CROP_BYTES = 30  # per pixel of the crops of a class, while those of its mosaics are chosen
FORWARD_BATCH = 100  # images of a forward pass over many, see `distill_core.models.teacher`
EVALUATION_BATCH = 500  # likewise, of an evaluation, see `distill_core.evaluation.metrics`
GRADIENTS = 2  # largest activations of which a backward pass holds the gradients
COPIES = 3  # of the weights, while a network is read from its file
TRAINED_GRADIENTS = 4  # likewise, of a backward pass to the weights, with its work space
INPUT_BYTES = 24  # per pixel of an image that is made the input of a network
NUMBER_BYTES = {"float32": 4, "bfloat16": 4, "float64": 8}  # weights stay wide under bfloat16
ACTIVATIONS = {"float32": 1.0, "bfloat16": 0.5, "float64": 2.0}  # relative to float32
LEAST = 0.5  # of what must be held at once; below it, the estimate would have to be twice too high
SHOWN = 0.05  # of the whole; smaller parts are not listed in messages


@dataclass(frozen=True)
class Part:
    """Something that a process holds at its peak."""

    what: str
    size: float  # bytes, an estimate
    least: float = 0.0  # bytes of it that are certainly needed, whatever the estimate's error
    place: Place = "device"  # on a GPU; on a CPU it is the same memory
    shared: bool = False  # by the processes of a node, which hold it once


@dataclass(frozen=True)
class Memory:
    """The memory of one process of a stage, with its decoders."""

    stage: str
    parts: tuple[Part, ...]
    settings: str  # that make it smaller
    processes: int = 1  # of one training, each of which holds this

    @property
    def needed(self) -> float:
        """Return the bytes of all parts, an estimate."""
        return sum(part.size for part in self.parts)

    @property
    def least(self) -> float:
        """Return the bytes below which the stage cannot work."""
        return sum(part.least for part in self.parts)

    @property
    def what(self) -> str:
        """Return the parts that matter, the largest first, for messages."""
        shown = [part for part in self.parts if part.size >= SHOWN * self.needed]
        ordered = sorted(shown, key=lambda part: -part.size)
        return ", ".join(f"{part.what} {units.size(part.size)}" for part in ordered)

    @property
    def own(self) -> Memory:
        """Return what every process holds for itself."""
        return replace(self, parts=tuple(part for part in self.parts if not part.shared))

    def of_node(self, processes: int) -> float:
        """Return the bytes that some processes on one node need together."""
        own = self.own.needed
        return self.needed - own + processes * own

    def on(self, place: Literal["device", "host"]) -> Memory:
        """Return what is on a GPU, or on the host of one."""
        parts = tuple(part for part in self.parts if part.place in (place, "both"))
        return replace(self, parts=parts)


def imports() -> Part:
    """Return the memory of a process that has done nothing yet."""
    return Part("its libraries", BASE, place="host")


def footprints(config: RunConfig, models: Sequence[ModelConfig]) -> list[Footprint]:
    """Return the sizes of some networks of a run; none if one of them is not known."""
    data = config.data
    found = [footprint(model, data.num_classes, side=data.side) for model in models]
    known = [network for network in found if network is not None]
    return known if len(known) == len(found) else []


def weights(networks: Sequence[Footprint], precision: Precision) -> float:
    """Return the bytes of the weights of some networks."""
    return sum(network.numbers for network in networks) * 1e6 * NUMBER_BYTES[precision]


def loaded(networks: Sequence[Footprint], precision: Precision) -> Part:
    """Return the networks that a process has read from their files."""
    size = weights(networks, precision)
    return Part("its networks", COPIES * size, LEAST * size)


def forward(networks: Sequence[Footprint], images: int, config: RunConfig) -> Part:
    """Return a forward pass without gradients, in the precision of a frozen network."""
    live = ACTIVATIONS[config.precision] * max(n.live * n.largest for n in networks)
    size = images * config.data.side**2 * (live + INPUT_BYTES)
    return Part(f"the activations of {images:,} images", size)


def evaluation(networks: Sequence[Footprint], config: RunConfig) -> Part:
    """Return the forward pass of an evaluation, which is in float32 whatever the precision."""
    part = forward(networks, EVALUATION_BATCH, config.model_copy(update={"precision": "float32"}))
    return replace(part, what=f"an evaluation of {EVALUATION_BATCH} images")


def pixels(what: str, images: int, config: RunConfig, *, place: Place = "host") -> Part:
    """Return decoded images, of which no fewer can be held."""
    size = float(images * 3 * config.data.side**2)
    return Part(f"{images:,} {what}", size, least=size, place=place)
