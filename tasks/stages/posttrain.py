"""The jobs that train students, and those that judge them on blocks of the test split."""

from __future__ import annotations

from distill_core.config.schema import RunConfig
from distill_core.config.students import SetName
from distill_core.evaluation.blocks import rows_in_training, validation_blocks
from distill_core.keys import (
    EvaluationSplit,
    ImageSet,
    StudentStart,
    TrainingSet,
    posttrain_key,
    validate_key,
)
from tasks.jobs import Job
from tasks.run import Run
from tasks.stages.inputs import Jobs, NotReady, RunInputs, manifest_name, test_images_of
from tasks.stages.names import in_round, is_last
from tasks.stages.relabel import described


def posttrain_jobs(plan: RunInputs, number: int) -> Jobs:
    """Return one job per student, seed and set; after an earlier round, its one student."""
    stage = in_round(plan.run.config, "posttrain", number)
    config = plan.run.config if is_last(stage) else plan.run.config.after_round(number)
    jobs = tuple(
        _posttrain_job(plan, config, number, student, seed, images_of)
        for student in range(len(config.posttrain.students))
        for seed in config.posttrain.seeds
        for images_of in config.posttrain.sets
    )
    return {stage: jobs}


def judged_in_blocks(run: Run) -> bool:
    """Return whether the final judgement is a stage; until the dataset is known, it may be."""
    try:
        images = test_images_of(run)
    except NotReady:
        return True
    return bool(validation_blocks(images, run.config.posttrain.validation_shard))


def validate_jobs(plan: RunInputs) -> Jobs:
    """Return one job per student and block of test images; none where training judges them all."""
    blocks = validation_blocks(plan.test_images, plan.run.config.posttrain.validation_shard)
    if not blocks:
        return {}
    trained = frozenset(plan.keys("posttrain"))
    every = posttrain_jobs(plan, len(plan.run.config.round_starts))["posttrain"]
    students = [job for job in every if job.key in trained]
    jobs = (_validate_job(plan, student, rows) for student in students for rows in blocks)
    return {"validate": tuple(jobs)}


def _validate_job(plan: RunInputs, student: Job, rows: range) -> Job:
    key = validate_key(plan.run.config, student=student.key, rows=rows)
    payload = {
        "student": student.payload["student"],
        "weights": student.key,
        "rows": [rows.start, rows.stop],
    }
    return Job(key, f"{student.shard}_t{rows.start:07d}-{rows.stop - 1:07d}", payload)


def _posttrain_job(
    plan: RunInputs, config: RunConfig, number: int, which: int, seed: int, images_of: SetName
) -> Job:
    stage = in_round(plan.run.config, "posttrain", number)
    student, source = config.posttrain.students[which], _source(images_of)
    images, labels, missing = _sources(plan, number, source)
    # Students of earlier rounds go on from each other; those that are judged start from scratch.
    start = None if is_last(stage) or number == 1 else plan.student(number)
    hard = images_of == "hard_labels"
    labels = [] if hard else labels
    rows = rows_in_training(plan.test_images, plan.run.config.posttrain.validation_shard)
    key = posttrain_key(
        config,
        student=StudentStart(student, seed, None if start is None else start.digest),
        data=TrainingSet(
            images_of,
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
    payload = {
        "round": None if is_last(stage) else number,
        "start": None if start is None else start.key,
        "student": which,
        "seed": seed,
        "set": images_of,
        "images": images,
        "labels": labels,
        "missing": missing,
    }
    return Job(key, f"{student.title}_{images_of}_s{seed}", payload)


def _source(images_of: SetName) -> ImageSet:
    return "random_real" if images_of == "random_real" else "distilled"


def _sources(
    plan: RunInputs, number: int, images_of: ImageSet
) -> tuple[list[str], list[str], list[str]]:
    """Return the keys of the image and label shards of one set, and the names of what it lacks.

    An image shard that lacks labels is left out whole, in every set of the same images: students
    are compared on equal terms.
    """
    recover, relabel = (in_round(plan.run.config, kind, number) for kind in ("recover", "relabel"))
    images = plan.manifest(manifest_name(recover, images_of)).entries
    labels = plan.manifest(manifest_name(relabel, images_of))
    partly = {described(shard) for shard in labels.missing}
    return (
        [entry.key for entry in images if entry.shard not in partly],
        [entry.key for entry in labels.entries if described(entry.shard) not in partly],
        list(labels.missing),
    )
