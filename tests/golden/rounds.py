"""The work between the rounds of a tiny run: training the student and selecting real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from distill_core.config.schema import RunConfig
from distill_core.labels.relabel import relabel_shard
from distill_core.labels.sources import OnlineLabels, StoredLabels
from distill_core.models.ensemble import as_ensemble
from distill_core.models.files import load_student, save_weights
from distill_core.models.teacher import FrozenTeacher
from distill_core.posttrain.student import StudentTask
from distill_core.posttrain.train import TrainedStudent, train_student
from distill_core.recover.batch import RecoveredBatch
from distill_core.selection.select import ClassSelection, candidates_of, gets_right, select_class
from distill_core.sharding import Batch, ImageId
from distill_core.storage.image_shards import ImageRows
from distill_core.storage.label_shards import decode_labels, encode_labels
from distill_core.training.supervised import Labelled
from tests.support.tiny import labelled

Made = Sequence[tuple[Batch, RecoveredBatch]]


def label_source(
    run: RunConfig, teachers: Sequence[FrozenTeacher], made: Made
) -> OnlineLabels | StoredLabels:
    """Return the labels of images by the labelling teachers; top-k labels are read from a file."""
    images = tuple(image for batch, _ in made for image in batch)
    pixels = torch.from_numpy(np.concatenate([part.pixels for _, part in made]))
    asked = as_ensemble(
        [teachers[number] for number in run.relabel.teachers], run.relabel.weighting
    )
    if run.relabel.scheme != "topk":
        return OnlineLabels([(images, pixels)], asked, run.relabel, run.seed)
    data = encode_labels(
        relabel_shard(
            ImageRows(images, pixels.numpy()),
            range(run.relabel.stored_views),
            config=run.relabel,
            teacher=asked,
            seed=run.seed,
        )
    )
    head = (asked.head.weight, asked.head.bias)
    readers, rest = [lambda view: decode_labels(data, [view])], run.posttrain.rest
    return StoredLabels(readers, [len(images)], head, "cpu", rest=rest)


def trained(
    run: RunConfig, teachers: Sequence[FrozenTeacher], made: Made, *, start: nn.Module | None = None
) -> TrainedStudent:
    """Return the run's first student, trained on images."""
    labels = np.array([image.label for batch, _ in made for image in batch])
    return train_student(
        StudentTask(run, run.posttrain.students[0], 0, "distilled"),
        Labelled(np.concatenate([part.pixels for _, part in made]), labels),
        label_source(run, teachers, made),
        labelled(8, seed=1),
        start=start,
    )


@dataclass
class Rounds:
    """A tiny run between its rounds; without any, there is neither a student nor a choice."""

    run: RunConfig
    teachers: Sequence[FrozenTeacher]
    real: Labelled
    number: int = 0
    student: FrozenTeacher | None = None
    _network: nn.Module | None = None
    _chosen: dict[int, ClassSelection] = field(default_factory=dict)

    def begin(self, made: Made) -> None:
        """Begin the next round, after what the rounds before made."""
        if self.number:
            run = self.run.after_round(self.number)
            self._network = trained(run, self.teachers, made, start=self._network).last
            self.student = load_student(
                save_weights(self._network),
                run.posttrain.students[0],
                self.teachers[0],
                precision=run.precision,
            )
        if self.run.recover.init == "judged":
            self._chosen = {label: self._choose(label) for label in np.unique(self.real.labels)}
        self.number += 1

    def judged(self, image: ImageId) -> int:
        """Return the place of the real image that a synthetic one starts from."""
        first = self.run.round_starts[self.number - 1]
        return self._chosen[image.label].start_of(image.ipc_index - first)

    def _choose(self, label: int) -> ClassSelection:
        last, starts, used = self._chosen.get(label), self.run.round_starts, np.zeros(0, np.int32)
        if last is not None:
            used = last.used_after(starts[self.number] - starts[self.number - 1])
        pixels, limit = self.real.pixels[self.real.labels == label], self.run.recover.candidates
        places = candidates_of(
            len(pixels), f"class_{label}", used=used, limit=limit, seed=self.run.seed
        )
        judges = (self.teachers[self.run.recover.teachers[0]], self.student)
        teacher, student = (
            None if one is None else gets_right(one, pixels[places], label) for one in judges
        )
        assert teacher is not None
        return select_class(places, teacher, student, used=used)
