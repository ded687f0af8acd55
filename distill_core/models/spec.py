"""The description of a teacher, and checks that it suits a run."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, PositiveInt, ValidationError

from distill_core.config.fields import Extended, Triple
from distill_core.config.schema import RunConfig
from distill_core.config.training import ModelConfig
from distill_core.errors import ConfigError, DataError
from distill_core.sharding import ClassEntry, class_list_hash


class TeacherSpec(Extended):
    """The description stored beside a teacher's weights."""

    ADDED = frozenset({"label_space"})

    model: ModelConfig
    num_classes: PositiveInt
    class_hash: str  # identity of the class list of its logits
    mean: Triple  # normalisation it was trained with, of pixels in [0, 1]
    std: Triple
    side: PositiveInt  # S in pixels
    features: PositiveInt  # D, input width of the head
    accuracy: float | None = Field(default=None, ge=0.0, le=100.0)  # test top-1, percent
    origin: str  # trained here, or the file it was imported from
    label_space: str | None = None  # of the classes, in the order of the dataset

    def to_json(self) -> bytes:
        """Return the description as stored JSON."""
        return self.model_dump_json(indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, *, where: str = "teacher description") -> TeacherSpec:
        """Parse a stored description.

        Raises:
            DataError: it is not a description.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            path = ".".join(map(str, problem["loc"])) or "JSON"
            raise DataError(
                f"{where}: {path}: {problem['msg']}; expected the description of a teacher. "
                "Run the squeeze stage again."
            ) from None


def check_teacher(spec: TeacherSpec, *, num_classes: int, class_hash: str, where: str) -> None:
    """Check that a teacher has the label space of the dataset.

    Raises:
        ConfigError: it has another class count or another class list.
    """
    if spec.num_classes != num_classes:
        raise ConfigError(
            f"{where}: the teacher has {spec.num_classes} classes, the dataset has {num_classes}. "
            "Train a teacher on this dataset, or set data to the one it was trained on."
        )
    if spec.class_hash != class_hash:
        raise ConfigError(
            f"{where}: the teacher's class list is {spec.class_hash}, the dataset's is "
            f"{class_hash}. Its logits stand for other classes: train a teacher on this dataset."
        )


def check_description(spec: TeacherSpec, run: RunConfig, *, class_hash: str, where: str) -> None:
    """Check that the description of a teacher agrees with the run.

    Raises:
        ConfigError: it has another class list, network or normalisation.
    """
    check_teacher(spec, num_classes=run.data.num_classes, class_hash=class_hash, where=where)
    if spec.model != run.squeeze.model:
        raise _other_network(spec, run, where)
    if (spec.mean, spec.std) != (run.data.mean, run.data.std):
        raise ConfigError(
            f"{where}: the teacher was trained with mean {spec.mean} and std {spec.std}, but "
            f"the run has {run.data.mean} and {run.data.std}. "
            "Set data.mean and data.std to the teacher's."
        )


def check_start(
    spec: TeacherSpec, run: RunConfig, classes: Sequence[ClassEntry], *, where: str
) -> None:
    """Check that the training of a teacher can start from the weights of another.

    Args:
        spec: of the teacher with the weights.
        run: whose teacher is trained.
        classes: every class of the dataset by id; the first ones must be the teacher's.
        where: names the teacher in errors.

    Raises:
        ConfigError: it has another network or other classes.
    """
    if spec.model != run.squeeze.model:
        raise _other_network(spec, run, where)
    if class_list_hash(classes[: spec.num_classes]) != spec.class_hash:
        raise ConfigError(
            f"{where}: the teacher's {spec.num_classes} classes are not the first of the dataset's "
            f"{len(classes)}. Its head stands for other classes: train a teacher without start."
        )


def _other_network(spec: TeacherSpec, run: RunConfig, where: str) -> ConfigError:
    return ConfigError(
        f"{where}: the teacher is a {spec.model.title}, but squeeze.model is "
        f"{run.squeeze.model.title}. Set squeeze.model to the teacher's network."
    )
