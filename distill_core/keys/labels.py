"""Keys of labels, and of the students that learn from them."""

from __future__ import annotations

from collections.abc import Sequence

from distill_core.config.schema import RunConfig
from distill_core.config.students import SetName
from distill_core.config.training import ModelConfig
from distill_core.keys.base import dumped, key_of

# What decides a label view, and what is said of it.
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
        scheme: what is stored, `auto` resolved.
        images: key of the image shard it describes.
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


def posttrain_key(
    run: RunConfig,
    *,
    student: ModelConfig,
    seed: int,
    images_of: SetName,
    images: Sequence[str],
    labels: Sequence[str],
    teachers: Sequence[str],
    class_hash: str,
    test: str,
    judged_on: int | None = None,
    missing: Sequence[str] = (),
    start: str | None = None,
) -> str:
    """Return the key of one trained and judged student.

    Args:
        run: the resolved run.
        student: its architecture.
        seed: of its start and its batch order.
        images_of: which set it is trained on.
        images: keys of the image shards.
        labels: keys of the label shards; empty for hard or online labels.
        teachers: sha256 of the teachers' weights.
        class_hash: identity of the label space.
        test: content fingerprint of the split it is judged on.
        judged_on: how many images of the split judge it while it trains; None: all of them.
        missing: names of the shards that the set lacks; its result names them.
        start: sha256 of the weights that training starts from; None: drawn from the seed.
    """
    parts = {
        "settings": dumped(
            run.posttrain, exclude={"students", "seeds", "sets", "validation_shard"}
        ),
        "views": dumped(run.relabel, include=VIEW_FIELDS) | {"views": run.relabel.stored_views},
        "student": dumped(student),
        "seed": [run.seed, seed],
        "set": images_of,
        "images": list(images),
        "labels": list(labels),
        "teachers": list(teachers),
        "classes": class_hash,
        "test": test,
    }
    if judged_on is not None:
        parts["judged_on"] = judged_on
    if missing:
        parts["missing"] = list(missing)
    if start is not None:
        parts["start"] = start
    return key_of(run, "posttrain", parts)


def validate_key(run: RunConfig, *, student: str, rows: range) -> str:
    """Return the key of the final judgement of one student on one block of test images.

    Args:
        run: the resolved run.
        student: key of the trained student; it names the test split's content, too.
        rows: the block, among the readable images of the test split.
    """
    return key_of(run, "validate", {"student": student, "rows": [rows.start, rows.stop]})
