"""The jobs of the post-train stage: one per student, seed and set."""

from __future__ import annotations

from dataclasses import dataclass

from distill_core.config.schema import RunConfig
from distill_core.config.students import SetName
from distill_core.evaluation.blocks import rows_in_training
from distill_core.keys import (
    EvaluationSplit,
    ImageSet,
    StudentStart,
    TrainingSet,
    posttrain_key,
)
from tasks.jobs import Job
from tasks.stages.inputs import Jobs, RunInputs
from tasks.stages.names import StageId
from tasks.stages.relabel import described


@dataclass(frozen=True)
class PosttrainPayload:
    """What a worker needs to know of one student."""

    round: int | None  # the student is trained after this round; None: after all of them
    start: str | None  # key of the student that this one goes on from
    student: int  # number of the student in the config
    seed: int
    set_name: SetName
    images: tuple[str, ...]  # keys of the image shards
    labels: tuple[str, ...]  # keys of the label shards, image shard by image shard
    missing: tuple[str, ...]  # shards that the set goes without


def posttrain_jobs(plan: RunInputs, stage: StageId) -> Jobs:
    """Return one job per student, seed and set; after an earlier round, its one student."""
    run = plan.run.config
    config = run if stage.round is None else run.after_round(stage.round)
    jobs = tuple(
        _posttrain_job(plan, config, stage, student, seed, set_name)
        for student in range(len(config.posttrain.students))
        for seed in config.posttrain.seeds
        for set_name in config.posttrain.sets
    )
    return {stage: jobs}


def _posttrain_job(
    plan: RunInputs, config: RunConfig, stage: StageId, which: int, seed: int, set_name: SetName
) -> Job[PosttrainPayload]:
    number, student = stage.last_round(plan.run.config), config.posttrain.students[which]
    images, labels, missing = _sources(plan, stage, _image_set(set_name))
    # Students of earlier rounds go on from each other; those that are judged start from scratch.
    start = None if stage.is_last or number == 1 else plan.student(number)
    hard = set_name == "hard_labels"
    labels = [] if hard else labels
    rows = rows_in_training(plan.test_images, plan.run.config.posttrain.validation_shard)
    key = posttrain_key(
        config,
        student=StudentStart(student, seed, None if start is None else start.digest),
        data=TrainingSet(
            set_name,
            images,
            labels,
            teachers=[] if hard else plan.digests(plan.run.config.relabel.teachers),
            missing=missing,
        ),
        test=EvaluationSplit(
            plan.index.class_hash,
            plan.index.test_fingerprint,
            rows=None if rows is None else len(rows),
        ),
    )
    payload = PosttrainPayload(
        round=stage.round,
        start=None if start is None else start.key,
        student=which,
        seed=seed,
        set_name=set_name,
        images=tuple(images),
        labels=tuple(labels),
        missing=tuple(missing),
    )
    return Job(key, f"{student.title}_{set_name}_s{seed}", payload)


def _image_set(set_name: SetName) -> ImageSet:
    return "random_real" if set_name == "random_real" else "distilled"


def _sources(
    plan: RunInputs, stage: StageId, images_of: ImageSet
) -> tuple[list[str], list[str], list[str]]:
    """Return the keys of the image and label shards of one set, and the names of what it lacks.

    An image shard that lacks labels is left out whole, in every set of the same images: students
    are compared on equal terms.
    """
    images = plan.manifest(StageId("recover", stage.round, images_of)).entries
    labels = plan.manifest(StageId("relabel", stage.round, images_of))
    partly = {described(shard) for shard in labels.missing}
    return (
        [entry.key for entry in images if entry.shard not in partly],
        [entry.key for entry in labels.entries if described(entry.shard) not in partly],
        list(labels.missing),
    )
