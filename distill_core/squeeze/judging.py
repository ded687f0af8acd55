"""An imported teacher on real images: its accuracy, and the network that its tensors belong to."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import nn

from distill_core.config.schema import RunConfig
from distill_core.config.training import ImportConfig
from distill_core.evaluation.metrics import logits_of
from distill_core.models.build import same_tensors, skeleton, with_weights
from distill_core.seeds import generator, philox_key
from distill_core.squeeze.import_check import check_import, explains
from distill_core.training.supervised import Labelled


def judge_import(
    model: nn.Module, test: Labelled, *, run: RunConfig, device: str, where: str
) -> None:
    """Refuse a teacher that does not know the classes of the dataset, in their order.

    Args:
        model: the teacher, on `device`.
        test: images of the test split; all of them count, or `squeeze.imported.sample` of them.
        run: its normalisation, network and settings of the import.
        device: where it computes.
        where: names its file in errors.

    Raises:
        ConfigError: it is refused; names the order of its outputs, or the network with the same
            tensors, that would explain it.
    """
    config = run.squeeze.imported or ImportConfig()
    images = _judged_images(test, config.sample, seed=run.seed)
    sampled = len(images.labels) < len(test.labels)
    predicted = _predictions(model, images, run, device)
    check_import(
        predicted,
        images.labels,
        config,
        classes=run.data.num_classes,
        where=f"{where} (judged on a sample)" if sampled else where,
        explain=partial(_other_stem, model, predicted, images, run=run, device=device),
    )


def _judged_images(test: Labelled, sample: int | None, *, seed: int) -> Labelled:
    """Return the test images that count: all, or a drawn sample."""
    if sample is None or sample >= len(test.labels):
        return test
    draws = generator(philox_key(seed, "squeeze", "judged"), 0)
    rows = np.sort(draws.choice(len(test.labels), sample, replace=False))
    return Labelled(test.pixels[rows], test.labels[rows])


@torch.no_grad()
def _predictions(model: nn.Module, images: Labelled, run: RunConfig, device: str) -> np.ndarray:
    """Return the class ids that a network gives to images, (n,)."""
    data = run.data
    batches = logits_of(model, images.pixels, mean=data.mean, std=data.std, device=device)
    return np.concatenate([logits.argmax(dim=1).cpu().numpy() for _, logits in batches])


def _other_stem(
    model: nn.Module, predicted: np.ndarray, images: Labelled, *, run: RunConfig, device: str
) -> str:
    """Return a sentence about a network with the same tensors that is clearly more accurate.

    A stride and a pooling have no tensor, so that the weights of one stem fit another and compute
    nothing useful there.
    """
    best, sentence = predicted, ""
    for config in same_tensors(run.squeeze.model, run.data.num_classes):
        classes = run.data.num_classes
        other = with_weights(config, classes, model.state_dict(), skeleton(config, classes))
        trial = _predictions(other, images, run, device)
        if explains(trial, best, images.labels):
            best, top1 = trial, 100 * float(np.mean(trial == images.labels))
            sentence = (
                f"As a {config.title}, which has the same tensors and other first layers, it is "
                f"{top1:.1f} %. Set squeeze.model.name={config.name}."
            )
    return sentence
