"""Memory of the stages that train: squeeze and post-train."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from distill_core.config.schema import RunConfig
from distill_core.config.students import LEVELS_FROM
from distill_core.config.training import ModelConfig
from distill_core.data.decoding.processes import span_size
from distill_core.errors import DistillError
from distill_core.evaluation.blocks import rows_in_training
from flows.estimate.memory.networks import MOMENTS
from flows.estimate.memory.parts import (
    ACTIVATIONS,
    FORWARD_BATCH,
    INPUT_BYTES,
    LEAST,
    NUMBER_BYTES,
    TRAINED_GRADIENTS,
    TRAINING,
    Memory,
    Part,
    Place,
    evaluation,
    footprints,
    forward,
    imports,
    loaded,
    pixels,
    weights,
)
from flows.estimate.memory.real_data import RealData
from flows.estimate.workload import label_values

IN_FLIGHT = 2**30  # bytes of batches that are read ahead, see `distill_core.training.streaming`
SPARE = 3  # of them, beside those whose images the decoders decode at the same time
BLOCKS = 256 * 2**20  # bytes of a test split that are held at once, see likewise
DECODER = 110e6  # bytes of a process that decodes images
DECODING = 250_000_000  # pixels from which on they are started, see `data.real_images`
RENDERED = 256 << 20  # bytes of the views of an epoch, see `distill_core.posttrain.epochs`
DRAW_BYTES = 100  # of an image under one view, see `distill_core.labels.sources`
MIXED = ("cutmix", "mixup")  # views whose partners are rendered with them


def squeeze(config: RunConfig, real: RealData) -> Memory | None:
    """Return the memory of the teacher that needs the most; None: all are taken over."""
    members = [config.squeeze.member(n) for n in range(1 + len(config.squeeze.pool))]
    trained = [m.model for m in members if m.training and not (m.checkpoint or m.reuse)]
    imported = [m.model for m in members if m.checkpoint is not None]
    if not (trained or imported):
        return None
    training = config.squeeze.training
    tests = None if real.test is None else min(real.test, BLOCKS // (3 * config.data.side**2))
    parts, settings, processes = [imports(), *_test(config, tests)], "data.side", 1
    if training is not None and trained:
        settings, processes = "squeeze.training.batch_size or data.side", training.processes
        count = training.batch_size if real.train is None else real.train
        images = -(-min(training.batch_size, count) // processes)
        moments = MOMENTS[training.optimizer.name]
        parts += _training(config, trained, images, held=2 + moments, stored=1 + moments)
        parts += _training_images(config, real, images)
    elif networks := footprints(config, imported):
        parts += [loaded(networks, "float32"), evaluation(networks, config)]
    return Memory("squeeze", tuple(parts), settings, processes)


def posttrain(config: RunConfig, real: RealData) -> Memory | None:
    """Return the memory of the student that needs the most; None: no student is trained."""
    post, count = config.posttrain, config.ipc * config.data.num_classes
    if not post.students:
        return None
    moments, share = MOMENTS[post.optimizer.name], min(post.batch_size, count) // post.processes
    rows = rows_in_training(real.test or 0, post.validation_shard)
    parts = (
        imports(),
        _distilled_pixels(count, config),
        *_labels(count, config),
        *_rendered(count, config),
        *_teachers(config),
        *_training(
            config,
            post.students,
            min(post.micro_batch or share, share),
            held=3 + moments,  # the average of the weights is one more
            stored=2 + moments,
        ),
        *_test(config, real.test if rows is None else len(rows)),
    )
    settings = "posttrain.micro_batch, ipc or data.side"
    return Memory("posttrain", parts, settings, post.processes)


def _distilled_pixels(count: int, config: RunConfig) -> Part:
    """Return the pixels of the distilled images; a GPU has a copy if it has room."""
    size = float(count * 3 * config.data.side**2)
    return Part(f"{count:,} distilled images", size, least=size, place="host", shared=True)


def _labels(count: int, config: RunConfig) -> Iterator[Part]:
    """Yield the labels of the view that is trained on, and of the one that is read ahead."""
    try:
        scheme, values = label_values(config)
    except DistillError:
        return  # the width of a network of timm is not known
    sizes = {"features": config.relabel.bits / 8, "logits": 2.0, "topk": 6.0, "online": 4.0}
    of_image = values * sizes[scheme] + DRAW_BYTES
    online = scheme == "online"
    views = 1 if online else 2
    place: Place = "device" if online else "host"
    yield Part(f"labels of {views} views", views * count * of_image, place=place)


def _rendered(count: int, config: RunConfig) -> Iterator[Part]:
    """Yield the views of an epoch, where all of them are rendered before they are mixed."""
    post, side = config.posttrain, config.data.side
    if config.relabel.mix.kind not in MIXED or count <= (post.micro_batch or post.batch_size):
        return
    level = 1 if side >= LEVELS_FROM else NUMBER_BYTES[config.precision]
    size = count * 3 * side**2 * level
    if size <= RENDERED:
        yield Part("rendered views", size)


def _teachers(config: RunConfig) -> Iterator[Part]:
    """Yield the teachers that label; stored labels need only their heads, but read them whole."""
    models = [config.squeeze.member(number).model for number in config.relabel.teachers]
    if not (networks := footprints(config, models)):
        return
    yield replace(loaded(networks, config.precision), what="its teachers")
    if config.relabel.scheme == "online":
        yield replace(forward(networks, FORWARD_BATCH, config), what="labels of 100 images")


def _training(
    config: RunConfig, models: Sequence[ModelConfig], images: int, *, held: int, stored: int
) -> Iterator[Part]:
    """Yield the largest of some networks in training, its activations, and those of an evaluation.

    Args:
        config: of the run.
        models: the networks.
        images: of a forward pass of one process.
        held: numbers for each weight: itself, its gradient and those of the optimiser.
        stored: likewise, in a checkpoint, which is in memory while it is written.
    """
    if not (networks := footprints(config, models)):
        return
    network = max(networks, key=lambda network: network.trained)
    size = weights([network], config.precision)
    yield Part("its network", TRAINING + (held + stored) * size, LEAST * held * size)
    scale, area = ACTIVATIONS[config.precision], config.data.side**2
    kept = scale * images * area * network.trained
    gradients = images * area * (TRAINED_GRADIENTS * scale * network.largest + INPUT_BYTES)
    yield Part(f"the activations of {images:,} images", kept + gradients, LEAST * kept)
    # An evaluation is in float32. What the steps have freed is not in one piece, so that it needs
    # memory of its own.
    yield evaluation([network], config)


def _training_images(config: RunConfig, real: RealData, images: int) -> Iterator[Part]:
    """Yield the training images, resident or read ahead, and the processes that decode them."""
    if real.train is None:
        return
    size, training = real.train * 3 * config.data.side**2, config.squeeze.training
    whole = training is not None and training.crop_from == "image"  # read in every epoch
    if size <= real.resident and not whole:
        yield pixels("training images", real.train, config, place="both")
    else:
        held = _read_ahead(images, config.data.side, real.decoders)
        yield pixels("training images read ahead", held * images, config)
    if real.decoders > 1 and real.train * max(64, config.data.side) ** 2 >= DECODING:
        decoders = DECODER * real.decoders
        yield Part(f"{real.decoders} decoders", decoders, place="host")


def _read_ahead(batch: int, side: int, decoders: int) -> int:
    """Return the batches that are held at once while images are streamed."""
    busy = -(-decoders // -(-batch // span_size(batch, decoders)))
    return 1 + min(busy + SPARE, max(2, IN_FLIGHT // (batch * 3 * side**2)))


def _test(config: RunConfig, images: int | None) -> Iterator[Part]:
    """Yield the test images on which a network in training is evaluated."""
    if images:
        yield pixels("test images", images, config)
