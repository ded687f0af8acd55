"""Memory of the stages that read real images and train nothing.

Ingest and pack decode them; statistics, select and validate pass them through networks.
"""

from __future__ import annotations

from dataclasses import replace

from distill_core.config.schema import RunConfig
from distill_core.data.streamed import HELD_BYTES
from distill_core.evaluation.blocks import validation_blocks
from flows.estimate.memory.parts import (
    CROP_BYTES,
    FORWARD_BATCH,
    Memory,
    Part,
    evaluation,
    footprints,
    forward,
    imports,
    loaded,
    pixels,
)
from flows.estimate.memory.real_data import RealData

# Memory of a forward pass that measures batch norms, or also the inputs of convolutions, which are
# copied in float32; relative to one that measures nothing.
MEASURED, PROBED = 1.5, 2.0
WINDOW_BYTES = 2**26  # of encoded images that are read together; two such groups are held
PHOTOGRAPHS = 100e6  # bytes of the images that two threads decode at a time


def ingest() -> Memory:
    """Return the memory of reading a part of a dataset."""
    return Memory("ingest", _decoded(), settings="the size of the files of the dataset")


def pack(config: RunConfig) -> Memory | None:
    """Return the memory of writing a pack, which is held twice then; None: none is written."""
    if (packs := config.data.pack) is None:
        return None
    written = Part("a pack, twice", 2.0 * packs.pack_bytes, place="host")
    return Memory("pack", (*_decoded(), written), settings="data.pack.pack_bytes")


def _decoded() -> tuple[Part, ...]:
    """Return what a process holds that decodes images and computes nothing."""
    return (
        imports(),
        Part("encoded images", 2.0 * WINDOW_BYTES, place="host"),
        Part("decoded images", PHOTOGRAPHS, place="host"),
    )


def statistics(config: RunConfig, real: RealData) -> Memory | None:
    """Return the memory of measuring the largest class; None: no term needs it, or not known."""
    if not config.recover.needs_class_statistics:
        return None
    models = [config.squeeze.member(number).model for number in config.recover.teachers]
    images, networks = real.of_a_class(config.data.num_classes), footprints(config, models)
    if images is None or not networks:
        return None
    passed = forward(networks, min(images, FORWARD_BATCH), config)
    times = MEASURED if config.recover.convolutions is None else PROBED
    passed = replace(passed, size=times * passed.size)
    parts = [imports(), loaded(networks, config.precision), passed]
    mosaic = config.recover.mosaic
    if config.recover.originals is not None and mosaic is not None:
        crops = images * mosaic.crops
        parts.append(Part(f"{crops:,} crops", crops * config.data.side**2 * CROP_BYTES))
    parts.append(pixels("images of a class", _held(images, config), config))
    return Memory("statistics", tuple(parts), settings="data.side")


def select(config: RunConfig, real: RealData) -> Memory | None:
    """Return the memory of classifying the largest class; None: nothing is, or not known."""
    if config.recover.init != "judged":
        return None
    models = [config.squeeze.member(config.recover.teachers[0]).model]
    models += [] if config.rounds is None else [config.rounds.student]
    images, networks = real.of_a_class(config.data.num_classes), footprints(config, models)
    if images is None or not networks:
        return None
    images = min(images, config.recover.candidates or images)
    return Memory(
        "select",
        (
            imports(),
            loaded(networks, config.precision),
            forward(networks, min(images, FORWARD_BATCH), config),
            pixels("images of a class", _held(images, config), config),
        ),
        settings="recover.candidates or data.side",
    )


def validate(config: RunConfig, real: RealData) -> Memory | None:
    """Return the memory of evaluating a block of the test split; None: no blocks, or not known."""
    networks = footprints(config, config.posttrain.students)
    blocks = validation_blocks(real.test or 0, config.posttrain.validation_shard)
    if not blocks or not networks:
        return None
    largest = [max(networks, key=lambda network: network.numbers)]
    return Memory(
        "validate",
        (
            imports(),
            loaded(largest, "float32"),
            evaluation(networks, config),
            pixels("test images", _held(len(blocks[0]), config), config),
        ),
        settings="posttrain.validation_shard or data.side",
    )


def _held(images: int, config: RunConfig) -> int:
    """Return how many of some images are in memory at once."""
    return min(images, max(FORWARD_BATCH, HELD_BYTES // (3 * config.data.side**2)))
