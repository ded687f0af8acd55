"""Checks of the dataset of a run: its splits, classes and labels. No image is read."""

from __future__ import annotations

from functools import partial

from distill_core.data.checks import check_classes
from distill_core.data.index import number_classes
from distill_core.data.label_checks import check_labels
from distill_core.data.readers.record import SamplesLabels, Split
from distill_core.errors import DistillError
from flows.runs.checks.request import Request, make

SPLITS: tuple[Split, ...] = ("train", "test")


def check_dataset(request: Request) -> None:
    """Check that the dataset has both splits, and the classes of the config.

    Raises:
        ConfigError, DataError: it has not, or it cannot be opened.
        Problems: several of these.
    """
    if "ingest" not in request.complete:
        make((_check_classes, _check_test_split), request)


def check_labels_of_splits(request: Request) -> None:
    """Check a sample of the labels of each split, where labels are not names of folders.

    Raises:
        DataError: no label of a split is one of its classes, or some are not.
        Problems: both splits have such labels.
    """
    if "ingest" not in request.complete:
        splits = SPLITS if request.rule is None else SPLITS[:1]
        make(tuple(partial(_check_labels, split=split) for split in splits), request)


def _check_classes(request: Request) -> None:
    rule = request.rule
    if rule is not None and rule.drops_classes:
        return  # which classes are left is known once their images are counted
    numbered = number_classes(request.classes, request.known)
    check_classes(request.config.data, request.classes, numbered)


def _check_test_split(request: Request) -> None:
    if request.rule is None:
        request.reader.classes("test")
    else:
        request.classes  # noqa: B018  # raises if there is no training split


def _check_labels(request: Request, *, split: Split) -> None:
    try:
        reader, classes = request.reader, request.classes
        labels = reader.sample_labels(split) if isinstance(reader, SamplesLabels) else None
    except DistillError:
        return  # there is no such split, which `check_dataset` reports
    if labels is not None:
        check_labels(request.config.data, split, labels, classes=len(classes))
