"""Checks of the teachers of a run that are not trained here."""

from __future__ import annotations

from functools import partial

from distill_core.config.training import ImportConfig, SqueezeConfig
from distill_core.recover.requirements import check_networks
from flows.runs.checks.request import Request, make
from tasks.stages.squeeze import stored_teacher


def check_model_names(request: Request) -> None:
    """Check that the networks exist, accept the size of image, and have what the terms need.

    Raises:
        ConfigError: one does not.
    """
    check_networks(request.config)


def check_teachers(request: Request) -> None:
    """Check that teachers that are not trained here exist, and fit by their headers.

    Raises:
        ConfigError, DataError: of the teacher that does not.
        Problems: several do not.
    """
    if "squeeze" in request.complete:
        return
    squeeze = request.config.squeeze
    members = [squeeze.member(number) for number in range(1 + len(squeeze.pool))]
    make(tuple(partial(_check_teacher, member=member) for member in members), request)


def _check_teacher(request: Request, *, member: SqueezeConfig) -> None:
    if member.checkpoint is not None:
        from distill_core.models.checkpoint_check import check_checkpoint  # imports torch
        from distill_core.models.hub_config import check_hub_config
        from distill_core.squeeze.outputs import count_outputs

        config = member.imported or ImportConfig()
        outputs = count_outputs(config, request.num_classes)
        check_checkpoint(member.checkpoint, member.model, num_classes=outputs, entry=config.entry)
        of_member = request.config.model_copy(update={"squeeze": member})
        check_hub_config(member.checkpoint, of_member, outputs=outputs)
    for key in (member.reuse, member.start):
        if key is not None:
            stored_teacher(request.store, key)
