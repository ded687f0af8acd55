"""An imported teacher on real images: its accuracy, and the network that its tensors belong to."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from distill_core.config.schema import RunConfig
from distill_core.config.training import ImportConfig
from distill_core.evaluation.accuracy import Accuracy, Hits
from distill_core.evaluation.metrics import is_hit, logits_of
from distill_core.models.build import same_tensors, skeleton, with_weights
from distill_core.seeds import generator, philox_key
from distill_core.squeeze.import_check import check_import, explains
from distill_core.training.supervised import Split, evaluation_parts
from distill_core.transforms.upload import upload


@dataclass(frozen=True)
class JudgedImages:
    """The test images that count: all of the split, or a drawn sample."""

    test: Split
    places: np.ndarray  # (m,) positions in the split, ascending

    @classmethod
    def of(cls, test: Split, sample: int | None, *, seed: int) -> JudgedImages:
        """Return all images of a split, or a sample of so many."""
        count = len(test.labels)
        if sample is None or sample >= count:
            return cls(test, np.arange(count))
        draws = generator(philox_key(seed, "squeeze", "judged"), 0)
        return cls(test, np.sort(draws.choice(count, sample, replace=False)))

    @property
    def labels(self) -> np.ndarray:
        """Return the classes, (m,) int64."""
        labels: np.ndarray = self.test.labels[self.places]
        return labels

    @property
    def are_all(self) -> bool:
        """Return whether every image of the split counts."""
        return len(self.places) == len(self.test.labels)


def judge_import(
    model: nn.Module, test: Split, *, run: RunConfig, device: str, where: str
) -> Accuracy | None:
    """Refuse a teacher that does not know the classes of the dataset, in their order.

    Args:
        model: the teacher, on `device`.
        test: images of the test split; all of them count, or `squeeze.imported.sample` of them.
        run: its normalisation, network and settings of the import.
        device: where it computes.
        where: names its file in errors.

    Returns:
        Its accuracy on the split; None if it is judged on a sample.

    Raises:
        ConfigError: it is refused; names the order of its outputs, or the network with the same
            tensors, that would explain it.
    """
    config = run.squeeze.imported or ImportConfig()
    images = JudgedImages.of(test, config.sample, seed=run.seed)
    predicted, hits = _predictions(model, images, run, device)
    check_import(
        predicted,
        images.labels,
        config,
        classes=run.data.num_classes,
        where=where if images.are_all else f"{where} (judged on a sample)",
        explain=partial(_other_stem, model, predicted, images, run=run, device=device),
    )
    return hits.accuracy if images.are_all else None


@torch.no_grad()
def _predictions(
    model: nn.Module, images: JudgedImages, run: RunConfig, device: str
) -> tuple[np.ndarray, Hits]:
    """Return the class ids that a network gives to images, (m,), and how many are right."""
    data, predicted, right = run.data, list[np.ndarray](), np.zeros(2, np.int64)
    parts = [images.places[rows] for rows in evaluation_parts(len(images.places))]
    with closing(images.test.blocks(parts, data.side)) as blocks:
        for part, pixels in zip(parts, blocks, strict=True):
            batches = logits_of(model, pixels, mean=data.mean, std=data.std, device=device)
            (logits,) = (logits for _, logits in batches)
            hits = is_hit(logits, upload(images.test.labels[part], device)).sum(dim=0)
            counted = torch.cat([logits.argmax(dim=1), hits]).cpu().numpy()
            predicted.append(counted[:-2])
            right += counted[-2:]
    return np.concatenate(predicted), Hits(len(images.places), int(right[0]), int(right[1]))


def _other_stem(
    model: nn.Module, predicted: np.ndarray, images: JudgedImages, *, run: RunConfig, device: str
) -> str:
    """Return a sentence about a network with the same tensors that is clearly more accurate.

    A stride and a pooling have no tensor, so that the weights of one stem fit another and compute
    nothing useful there.
    """
    best, sentence = predicted, ""
    for config in same_tensors(run.squeeze.model, run.data.num_classes):
        classes = run.data.num_classes
        other = with_weights(config, classes, model.state_dict(), skeleton(config, classes))
        trial, hits = _predictions(other, images, run, device)
        if explains(trial, best, images.labels):
            best = trial
            sentence = (
                f"As a {config.title}, which has the same tensors and other first layers, it is "
                f"{100 * hits.top1 / hits.images:.1f} %. Set squeeze.model.name={config.name}."
            )
    return sentence
