"""Keys of label shards, of the students trained on them, and of their evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distill_core.config.schema import RunConfig
from distill_core.config.students import SetName
from distill_core.config.training import ModelConfig
from distill_core.keys.base import dumped, key_of, repacked

# Settings that decide a label view and its label.
VIEW_FIELDS = frozenset(
    {
        "crop",
        "flip",
        "mix",
        "batch_statistics",
        "rand_augment",
        "patches",
        "weighting",
        "bits",
        "topk",
    }
)


def relabel_key(
    run: RunConfig, *, scheme: str, images: str, teachers: Sequence[str], views: range
) -> str:
    """Return the key of one label shard.

    Args:
        run: the resolved run.
        scheme: the values that are stored, with `auto` resolved.
        images: content of the image shard it labels.
        teachers: sha256 of the teachers' weights.
        views: the view ids it covers.
    """
    parts = {
        "settings": dumped(run.relabel, include=VIEW_FIELDS),
        "scheme": scheme,
        "images": images,
        "teachers": list(teachers),
        "views": [views.start, views.stop],
        "seed": run.seed,
    }
    return key_of(run, "relabel", parts)


@dataclass(frozen=True, slots=True)
class StudentStart:
    """A student before its training."""

    model: ModelConfig
    seed: int  # of its start and its batch order
    weights: str | None = None  # sha256 of the weights it starts from; None: drawn from the seed


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The shards that a student is trained on."""

    name: SetName
    images: Sequence[str]  # contents of the image shards
    labels: Sequence[str]  # contents of the label shards; empty for hard or online labels
    teachers: Sequence[str]  # sha256 of the teachers' weights
    missing: Sequence[str] = ()  # names of the shards that the set lacks; its result names them


@dataclass(frozen=True, slots=True)
class EvaluationSplit:
    """The images that a student is evaluated on."""

    class_hash: str  # identity of the label space
    fingerprint: str  # of the content of the test split
    rows: int | None = None  # images that evaluate it during training; None: all of them


def posttrain_key(
    run: RunConfig, *, student: StudentStart, data: TrainingSet, test: EvaluationSplit
) -> str:
    """Return the key of one trained and evaluated student."""
    parts = {
        "settings": dumped(
            run.posttrain, exclude={"students", "seeds", "sets", "validation_shard"}
        ),
        "views": dumped(run.relabel, include=VIEW_FIELDS) | {"views": run.relabel.stored_views},
        "student": dumped(student.model),
        "seed": [run.seed, student.seed],
        "set": data.name,
        "images": list(data.images),
        "labels": list(data.labels),
        "teachers": list(data.teachers),
        "classes": test.class_hash,
        "test": test.fingerprint,
        **repacked(run.data),
    }
    if test.rows is not None:
        parts["judged_on"] = test.rows
    if data.missing:
        parts["missing"] = list(data.missing)
    if student.weights is not None:
        parts["start"] = student.weights
    return key_of(run, "posttrain", parts)


def validate_key(run: RunConfig, *, student: str, weights: str | None, rows: range) -> str:
    """Return the key of the final evaluation of one student on one block of test images.

    Args:
        run: the resolved run.
        student: key of the trained student, which includes the test split's content.
        weights: content of its weights; None for a student of an older version.
        rows: the block, among the readable images of the test split.
    """
    parts = {"student": student, "rows": [rows.start, rows.stop]}
    return key_of(run, "validate", parts if weights is None else parts | {"weights": weights})
