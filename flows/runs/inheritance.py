"""What a version of a series takes over from the one before, by policy: its teachers."""

from __future__ import annotations

from distill_core.config.data import DataConfig
from distill_core.config.schema import RunConfig
from distill_core.data.index import DatasetIndex
from distill_core.data.readers.formats import open_reader
from distill_core.errors import ConfigError
from tasks.policy import TeacherPolicy
from tasks.run import Run
from tasks.runs.stage_status import manifests
from tasks.stages.names import StageId


def refuse_added(data: DataConfig, before: DatasetIndex) -> None:
    """Refuse classes that a kept teacher has no output for, before any image is read.

    Raises:
        ConfigError: the dataset has a class that the version before never had.
    """
    known = set(before.class_names)
    added = [name for name in open_reader(data).classes() if name not in known]
    if added:
        raise ConfigError(
            f"{data.path or data.format}: class {added[0]!r} is new ({len(added)} such classes), "
            "and the teacher that policy keep takes over has no output for it. Use policy "
            "fine_tune or squeeze_again, or leave the class out."
        )


def inherit(config: RunConfig, base: Run, policy: TeacherPolicy) -> RunConfig:
    """Return what is asked for with the teachers that the policy gives it, each by its place.

    Raises:
        ConfigError: another number of teachers, or none is trained that could be fine-tuned.
    """
    if policy == "squeeze_again":
        return config
    if policy == "fine_tune" and config.squeeze.training is None:
        raise ConfigError(
            "squeeze.training: not given, and policy fine_tune trains the teacher. Say how, or "
            "use policy keep."
        )
    teachers, pool = (
        manifests(base, StageId("squeeze"))[StageId("squeeze")].entries,
        config.squeeze.pool,
    )
    if len(teachers) != 1 + len(pool):
        raise ConfigError(
            f"squeeze.pool: teachers that are asked for: {1 + len(pool)}, those of "
            f"runs/{base.name}: {len(teachers)}. Ask for as many, or use policy squeeze_again."
        )
    first, *others = [_source(entry.key, policy) for entry in teachers]
    members = [member.model_copy(update=o) for member, o in zip(pool, others, strict=True)]
    squeeze = config.squeeze.model_copy(update={**first, "pool": tuple(members)})
    return config.model_copy(update={"squeeze": squeeze})


def _source(key: str, policy: TeacherPolicy) -> dict[str, str | None]:
    """Return where a teacher comes from, in the words of `SqueezeConfig`."""
    keep = policy == "keep"
    return {"checkpoint": None, "reuse": key if keep else None, "start": None if keep else key}
