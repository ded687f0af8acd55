"""Whether the networks of a run can do what its config asks of them, from their names alone."""

from __future__ import annotations

from collections.abc import Sequence

from distill_core.config.schema import RunConfig
from distill_core.config.terms import NEEDS_BATCH_NORMS
from distill_core.config.training import FIXED_SIDE, TIMM, WITHOUT_BATCH_NORM, ModelConfig
from distill_core.errors import ConfigError


def check_networks(run: RunConfig) -> None:
    """Check the networks of a run before any work.

    torch is imported only for networks of timm.

    Raises:
        ConfigError: a network of timm does not exist or cannot be built here, a network accepts
            only another size of image, or a term needs batch norm and no teacher has any.
    """
    squeeze = run.squeeze
    teachers = [squeeze.member(number).model for number in range(1 + len(squeeze.pool))]
    named = [
        (f"squeeze.pool[{number - 1}].model" if number else "squeeze.model", model)
        for number, model in enumerate(teachers)
    ]
    named += [(f"posttrain.students[{n}]", model) for n, model in enumerate(run.posttrain.students)]
    for key, model in named:
        _check_side(key, model, run.data.side)
    needy = run.recover.active_terms & NEEDS_BATCH_NORMS
    used = [teachers[number] for number in run.recover.teachers]
    if needy and run.recover.steps > 0 and not any(map(has_batch_norms, used)):
        raise _without(used, min(needy))


def has_batch_norms(model: ModelConfig) -> bool:
    """Return whether a network has a batch norm layer.

    Raises:
        ConfigError: it is one of timm that cannot be built here.
    """
    if not model.name.startswith(TIMM):
        return model.name not in WITHOUT_BATCH_NORM
    from torch import nn

    from distill_core.models.build import skeleton

    return any(isinstance(module, nn.BatchNorm2d) for module in skeleton(model, 2).modules())


def _check_side(key: str, model: ModelConfig, side: int) -> None:
    expected = FIXED_SIDE.get(model.name)
    if model.name.startswith(TIMM):
        from distill_core.models.timm_networks import fixed_side

        expected = fixed_side(model.name.removeprefix(TIMM))
    if expected is not None and expected != side:
        raise ConfigError(
            f"{key}: {model.title} accepts images of {expected} x {expected} pixels only, but "
            f"data.side = {side}. Set data.side={expected}, or choose another network."
        )


def _without(teachers: Sequence[ModelConfig], term: str) -> ConfigError:
    return ConfigError(
        f"recover.terms: {teachers[0].title} has no batch norm layer, {term} needs one. Use a "
        "teacher with batch norm, or drop the term."
    )
