"""The sizes of the networks of a run: in memory, and the bytes that it stores of them."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

from distill_core.config.schema import RunConfig
from distill_core.config.training import (
    CONVNET_WIDTH,
    RESNET18_SMALL_WIDTH,
    TIMM,
    ModelConfig,
)
from distill_core.errors import DistillError
from flows.estimate.memory.footprints import FOOTPRINTS, Footprint
from flows.estimate.workload import feature_width

MOMENTS = {"sgd": 1, "adam": 2, "adamw": 2}  # numbers that an optimiser keeps of each weight


def footprint(model: ModelConfig, classes: int, *, side: int) -> Footprint | None:
    """Return the size of a network; None: it is one of timm that cannot be measured here.

    Activations grow with the width, numbers with its square and with the classes of the head.

    Args:
        model: the network.
        classes: C.
        side: S of its images in pixels.
    """
    if model.name.startswith(TIMM):
        return _measured(model, classes, side)
    full, times = FOOTPRINTS[model.name], 1.0
    if model.width is not None:
        usual = CONVNET_WIDTH if model.name.startswith("convnet") else RESNET18_SMALL_WIDTH
        times = model.width / usual
    head = feature_width(model) * classes / 1e6
    return Footprint(
        full.numbers * times**2 + head,
        full.kept * times,
        full.largest * times,
        None if full.to_weights is None else full.to_weights * times,
        full.live,
    )


@cache
def _measured(model: ModelConfig, classes: int, side: int) -> Footprint | None:
    """Return the size of a network of timm; None: timm or the network is not there.

    Whatever the code of a network does without values, a check of memory is no reason to stop.
    """
    from distill_core.models.footprint import measure_footprint  # imports torch and timm

    with suppress(DistillError, RuntimeError, NotImplementedError, ValueError, TypeError):
        found = measure_footprint(model, classes, side=side)
        return Footprint(found.numbers / 1e6, found.kept, found.largest, found.trained)
    return None


def network_bytes(config: RunConfig) -> int:
    """Return the bytes of the teachers and students that a run stores, as far as they are known.

    A student is stored twice: its last weights and their average.
    """
    trainings = len(config.posttrain.seeds) * len(config.posttrain.sets)
    sizes = [(model, 1) for model in teacher_models(config)]
    sizes += [(model, 2 * trainings) for model in config.posttrain.students]
    return int(sum(4e6 * numbers_of(model, config) * count for model, count in sizes))


def checkpoint_bytes(config: RunConfig) -> int:
    """Return the bytes of the checkpoints that the largest training of a run keeps at once.

    Those of a finished training are deleted. Two states are kept, and a third is being written.
    """
    squeeze, post, sizes = config.squeeze, config.posttrain, [0.0]
    if squeeze.training is not None:
        numbers = 1 + MOMENTS[squeeze.training.optimizer.name]
        sizes += [numbers * numbers_of(model, config) for model in teacher_models(config)]
    numbers = 2 + MOMENTS[post.optimizer.name]
    sizes += [numbers * numbers_of(model, config) for model in post.students]
    return int(3 * 4e6 * max(sizes))


def teacher_models(config: RunConfig) -> list[ModelConfig]:
    """Return the networks of the teachers of a run."""
    return [config.squeeze.member(n).model for n in range(1 + len(config.squeeze.pool))]


def numbers_of(model: ModelConfig, config: RunConfig) -> float:
    """Return the millions of numbers of a network of a run; 0: not known."""
    known = footprint(model, config.data.num_classes, side=config.data.side)
    return 0.0 if known is None else known.numbers
