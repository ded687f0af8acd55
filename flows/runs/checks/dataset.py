"""Checks of the dataset of a run: its splits, classes and labels. No image is read."""

from __future__ import annotations

from functools import partial

from distill_core.data.checks import check_classes
from distill_core.data.index import number_classes
from distill_core.data.labels.checks import check_labels
from distill_core.data.readers.record import SamplesLabels, Split
from distill_core.errors import DistillError
from distill_core.label_spaces.compare import check_contains
from flows.runs.checks.request import Request, make

SPLITS: tuple[Split, ...] = ("train", "test")


def check_dataset(request: Request) -> None:
    """Check that the dataset has both splits, and the classes of the config.

    Raises:
        ConfigError, DataError: it has not, or it cannot be opened.
        Problems: several of these.
    """
    if "ingest" not in request.complete:
        make((_check_classes, _check_splits), request)


def check_labels_of_splits(request: Request) -> None:
    """Check a sample of the labels of each split, where labels are not names of folders.

    Raises:
        DataError: no label of a split is one of its classes, or some are not, or a file with
            labels is damaged.
        Problems: both splits have such labels.
    """
    if "ingest" not in request.complete:
        splits = SPLITS if request.rule is None else SPLITS[:1]
        make(tuple(partial(_check_labels, split=split) for split in splits), request)


def _check_classes(request: Request) -> None:
    rule, data = request.rule, request.config.data
    if rule is None or not rule.drops_classes:
        check_classes(data, request.classes, number_classes(request.classes, request.known))
    elif data.label_space is not None:
        # Which classes are left is known once their images are counted, but those must be there.
        check_contains(request.classes, data.label_space, where=data.path or data.format)


def _check_splits(request: Request) -> None:
    request.reader.classes("test" if request.rule is None else "train")


def _check_labels(request: Request, *, split: Split) -> None:
    try:
        reader, classes = request.reader, request.classes
        reader.classes(split)
    except DistillError:
        return  # there is no such split, which `check_dataset` reports
    if isinstance(reader, SamplesLabels):
        labels = reader.sample_labels(split)
        check_labels(request.config.data, split, labels, classes=len(classes))
