"""A squeezed teacher: its files, its accuracy and its training curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from torch import nn

from distill_core.config.fields import Precision
from distill_core.config.schema import RunConfig
from distill_core.config.training import SqueezeConfig
from distill_core.evaluation.accuracy import Accuracy
from distill_core.models.build import head_name
from distill_core.models.files import load_teacher, teacher_files
from distill_core.models.spec import TeacherSpec
from distill_core.models.teacher import FrozenTeacher

Point = Mapping[str, float]  # epoch, lr, loss, and top1 where it was measured


@dataclass(frozen=True)
class SqueezedTeacher:
    """A teacher, its accuracy and its training curve."""

    files: dict[str, bytes]  # by suffix: safetensors and json
    accuracy: Accuracy  # on the test split, percent
    curve: tuple[Point, ...]
    judged: bool = True  # False: there were no test images, and `accuracy` is zero

    def frozen(self, *, device: str = "cpu", precision: Precision = "float32") -> FrozenTeacher:
        """Return the teacher as the later stages use it.

        Args:
            device: where it computes.
            precision: of its convolutions.
        """
        weights, spec = self.files["safetensors"], self.files["json"]
        return load_teacher(weights, spec, device=device, precision=precision)


def described_teacher(
    model: nn.Module,
    accuracy: Accuracy | None,
    curve: Sequence[Point],
    *,
    run: RunConfig,
    class_hash: str,
) -> SqueezedTeacher:
    """Describe a teacher that was evaluated as it is stored: in float32, whatever trained it.

    Without test images it was not evaluated, and its accuracy is stored as unknown.
    """
    head = model.get_submodule(head_name(model))
    assert isinstance(head, nn.Linear)
    spec = TeacherSpec(
        model=run.squeeze.model,
        num_classes=run.data.num_classes,
        class_hash=class_hash,
        mean=run.data.mean,
        std=run.data.std,
        side=run.data.side,
        features=head.in_features,
        accuracy=None if accuracy is None else accuracy.top1,
        origin=_origin(run.squeeze),
        label_space=run.data.label_space,
    )
    files = teacher_files(model, spec)
    if accuracy is None:
        return SqueezedTeacher(files, Accuracy(0.0, 0.0), tuple(curve), judged=False)
    last = [{**point, "top1": accuracy.top1} for point in curve[-1:]]
    return SqueezedTeacher(files, accuracy, (*curve[:-1], *last))


def _origin(config: SqueezeConfig) -> str:
    if config.checkpoint is not None:
        return PurePosixPath(config.checkpoint).name
    return "trained" if config.start is None else "fine-tuned"
