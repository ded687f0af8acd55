"""What a teacher is: everything needed to use its weights, and to refuse the wrong ones."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, PositiveInt, ValidationError

from distill_core.config.fields import Frozen, Triple
from distill_core.config.schema import RunConfig
from distill_core.config.training import ModelConfig
from distill_core.errors import ConfigError, DataError
from distill_core.sharding import ClassEntry, class_list_hash


class TeacherSpec(Frozen):
    """The description stored beside a teacher's weights."""

    model: ModelConfig
    num_classes: PositiveInt
    class_hash: str  # identity of the class list its logits stand for
    mean: Triple  # normalisation it was trained with, of pixels in [0, 1]
    std: Triple
    side: PositiveInt  # S in pixels
    features: PositiveInt  # D, input width of the head
    accuracy: float | None = Field(default=None, ge=0.0, le=100.0)  # test top-1, percent
    origin: str  # where it came from: trained here, or a file

    def to_json(self) -> bytes:
        """Return the description as it is stored."""
        return self.model_dump_json(indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, *, where: str = "teacher description") -> TeacherSpec:
        """Read a stored description.

        Raises:
            DataError: it is not one.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            path = ".".join(map(str, problem["loc"])) or "JSON"
            raise DataError(
                f"{where}: {path}: {problem['msg']}; expected the description of a teacher. "
                "Write it again with the squeeze stage."
            ) from None


def check_teacher(spec: TeacherSpec, *, num_classes: int, class_hash: str, where: str) -> None:
    """Refuse a teacher of another label space.

    Raises:
        ConfigError: another class count, or the same count over another class list.
    """
    if spec.num_classes != num_classes:
        raise ConfigError(
            f"{where}: the teacher has {spec.num_classes} classes, the dataset has {num_classes}. "
            "Squeeze a teacher on this dataset, or point data at the one it was trained on."
        )
    if spec.class_hash != class_hash:
        raise ConfigError(
            f"{where}: the teacher's class list is {spec.class_hash}, the dataset's is "
            f"{class_hash}. Its logits would mean other classes: squeeze a teacher on this dataset."
        )


def check_description(spec: TeacherSpec, run: RunConfig, *, class_hash: str, where: str) -> None:
    """Refuse a teacher whose own description contradicts the run.

    Raises:
        ConfigError: another class list, network or normalisation.
    """
    check_teacher(spec, num_classes=run.data.num_classes, class_hash=class_hash, where=where)
    if spec.model != run.squeeze.model:
        raise _other_network(spec, run, where)
    if (spec.mean, spec.std) != (run.data.mean, run.data.std):
        raise ConfigError(
            f"{where}: the teacher was trained with mean {spec.mean} and std {spec.std}, the run "
            f"says {run.data.mean} and {run.data.std}. Set data.mean and data.std to the teacher's."
        )


def check_start(
    spec: TeacherSpec, run: RunConfig, classes: Sequence[ClassEntry], *, where: str
) -> None:
    """Refuse a teacher whose weights cannot be where the training of another starts.

    Args:
        spec: of the teacher.
        run: what is to be trained.
        classes: every class of the dataset by id; the teacher's must be the first of them.
        where: what names the teacher, for people.

    Raises:
        ConfigError: another network, or other classes.
    """
    if spec.model != run.squeeze.model:
        raise _other_network(spec, run, where)
    if class_list_hash(classes[: spec.num_classes]) != spec.class_hash:
        raise ConfigError(
            f"{where}: the teacher's {spec.num_classes} classes are not the first of the dataset's "
            f"{len(classes)}. Its head would mean other classes: squeeze a teacher anew."
        )


def _other_network(spec: TeacherSpec, run: RunConfig, where: str) -> ConfigError:
    return ConfigError(
        f"{where}: the teacher is a {spec.model.title}, squeeze.model says "
        f"{run.squeeze.model.title}. Set squeeze.model to the teacher's network."
    )
