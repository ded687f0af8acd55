"""Keys of teachers, of class statistics, of selections, and of the images made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from distill_core.config.schema import RunConfig
from distill_core.keys.base import dumped, key_of, repacked
from distill_core.sharding import ClassShard

ImageSet = Literal["distilled", "random_real"]
# Settings that decide a start, and with it an image of 0 steps; losses are stored with it.
STARTS = {"init", "mosaic", "encoding", "first_layer_factor", "space", "start_std"}


def squeeze_key(
    run: RunConfig,
    *,
    class_hash: str,
    train: str,
    test: str,
    checkpoint: str | None,
    start: str | None = None,
) -> str:
    """Return the key of the teacher.

    Args:
        run: the resolved run.
        class_hash: identity of the label space.
        train: content fingerprint of the training split, read when a teacher is trained.
        test: content fingerprint of the split its accuracy is measured on.
        checkpoint: sha256 of the imported file; None when the teacher is trained.
        start: sha256 of the weights that training starts from; None: drawn from the seed.
    """
    parts: dict[str, Any] = {
        "model": dumped(run.squeeze.model),
        "classes": class_hash,
        "test": test,
        **repacked(run.data),
    }
    if checkpoint is not None:
        imported = run.squeeze.imported
        if imported is not None and imported.outputs:
            parts |= {"outputs": list(imported.outputs)}
        if imported is not None and imported.label_space is not None:
            parts |= {"outputs_of": imported.label_space}
        if imported is not None and imported.entry is not None:
            parts |= {"entry": imported.entry}
        return key_of(run, "squeeze", parts | {"checkpoint": checkpoint})
    parts |= {"training": dumped(run.squeeze.training), "train": train, "seed": run.seed}
    return key_of(run, "squeeze", parts if start is None else parts | {"start": start})


def statistics_key(
    run: RunConfig,
    wnids: Sequence[str],
    *,
    teachers: Sequence[str],
    fingerprints: Mapping[str, str],
    labels: Sequence[int] = (),
    imported: str | None = None,
) -> str:
    """Return the key of the class statistics of one block of classes.

    Args:
        run: the resolved run; its terms decide what is measured.
        wnids: the classes, in order.
        teachers: sha256 of the teachers' weights; the one that is measured comes first.
        fingerprints: content fingerprint by wnid.
        labels: ids of the classes; used only where a teacher ranks the images of a class.
        imported: sha256 of the statistics that were imported with the teacher; None: none were.
    """
    config, content = run.recover, [[wnid, fingerprints[wnid]] for wnid in wnids]
    parts: dict[str, Any] = {"teachers": list(teachers), "content": content, **repacked(run.data)}
    if config.measured - {"batch_norms"}:
        parts["measured"] = sorted(config.measured)
    if imported is not None:
        parts["imported"] = imported
    if "patches" in config.measured:
        parts |= {k: v for k, v in dumped(config.convolutions).items() if k == "patch"}
    if "barycentre" in config.measured:
        parts |= {"barycentre": dumped(config.barycentre), "seed": run.seed}
    if "originals" in config.measured:
        parts |= {"originals": dumped(config.originals), "mosaic": dumped(config.mosaic)}
        parts |= {"labels": list(labels), "seed": run.seed}
    return key_of(run, "statistics", parts)


def select_key(
    run: RunConfig,
    wnids: Sequence[str],
    *,
    teacher: str,
    student: str | None,
    before: str | None,
    start: int,
    fingerprints: Mapping[str, str],
) -> str:
    """Return the key of the real images that a round starts from, for one block of classes.

    Args:
        run: the resolved run.
        wnids: the classes, in order.
        teacher: sha256 of the weights of the teacher that ranks the images.
        student: sha256 of the weights of the previous rounds' student; None in the first round.
        before: content of the selection of the previous round.
        start: ipc_index at which the round begins; with that of the previous round, it gives the
            number of images that are used up.
        fingerprints: content fingerprint by wnid.
    """
    parts = {
        "candidates": run.recover.candidates,
        "teacher": teacher,
        "student": student,
        "before": before,
        "start": start,
        "content": [[wnid, fingerprints[wnid]] for wnid in wnids],
        "seed": run.seed,
        **repacked(run.data),
    }
    return key_of(run, "select", parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverReads:
    """The results of earlier stages that an image shard is made from."""

    teachers: Sequence[str]  # sha256 of the teachers' weights
    statistics: Sequence[str] = ()  # contents of the statistics of its classes, by teacher
    every: Sequence[str] = ()  # those of all blocks, for terms that compare with all classes
    selection: str | None = None  # content of the selection of real images it starts from
    student: str | None = None  # sha256 of the weights of the student that a term evaluates


def recover_key(
    run: RunConfig,
    images: ImageSet,
    shard: ClassShard,
    *,
    reads: RecoverReads,
    fingerprints: Mapping[str, str],
) -> str:
    """Return the key of one image shard.

    Args:
        run: the resolved run.
        images: the set that the shard belongs to.
        shard: its groups and grids name every (class id, wnid, ipc_index).
        reads: contents of the results it is made from.
        fingerprints: content fingerprint by wnid; used only if the start is a real image.
    """
    config = run.recover_for(images)
    # The batches below contain batch size and composition, and the range too unless late groups
    # divide it. Without steps, only the start and its encoding count.
    repeated = {"batch_size", "composition", "shard_classes", "candidates"}
    if config.late_groups == 1:
        repeated |= {"ipc_range"}
    settings = (
        dumped(config, exclude=repeated | {"teachers"})
        if config.steps
        else dumped(config, include=STARTS)
    )
    content = None
    if config.reads_real_images:
        content = [fingerprints[wnid] for wnid in sorted(wnid for _, wnid in shard.classes)]
    parts = {
        "settings": settings,
        "teachers": list(reads.teachers),
        "groups": shard.groups,
        "batches": shard.grids,
        "content": content,
        "statistics": list(reads.statistics),
        "seed": run.seed,
    }
    if content is not None:
        parts |= repacked(run.data)
    if reads.every:
        parts["every"] = list(reads.every)
    for name, value in (("selection", reads.selection), ("student", reads.student)):
        if value is not None:
            parts[name] = value
    return key_of(run, "recover", parts)
