"""The teachers that a new version of a series takes over from the one before."""

from __future__ import annotations

from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from tasks.policy import TeacherPolicy
from tasks.run import Run
from tasks.runs.stage_status import manifests
from tasks.stages.names import StageId


def inherit(config: RunConfig, base: Run, policy: TeacherPolicy) -> RunConfig:
    """Return a config with the teachers of a previous version, in order, by policy.

    Raises:
        ConfigError: another number of teachers, or fine-tuning without training settings.
    """
    if policy == "squeeze_again":
        return config
    if policy == "fine_tune" and config.squeeze.training is None:
        raise ConfigError(
            "squeeze.training: missing, but policy fine_tune trains the teacher. Set it, or use "
            "policy keep."
        )
    squeezed = StageId("squeeze")
    teachers, pool = manifests(base, squeezed)[squeezed].entries, config.squeeze.pool
    if len(teachers) != 1 + len(pool):
        raise ConfigError(
            f"squeeze.pool: the config has {1 + len(pool)} teachers, runs/{base.name} has "
            f"{len(teachers)}. Use the same number, or policy squeeze_again."
        )
    first, *others = [_source(entry.key, policy) for entry in teachers]
    members = [
        member.model_copy(update=source) for member, source in zip(pool, others, strict=True)
    ]
    squeeze = config.squeeze.model_copy(update={**first, "pool": tuple(members)})
    return config.model_copy(update={"squeeze": squeeze})


def _source(key: str, policy: TeacherPolicy) -> dict[str, str | None]:
    """Return the source of a teacher as fields of `SqueezeConfig`."""
    keep = policy == "keep"
    return {"checkpoint": None, "reuse": key if keep else None, "start": None if keep else key}
