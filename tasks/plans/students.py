"""The jobs that train and judge students."""

from __future__ import annotations

from distill_core.config.schema import SetName
from distill_core.keys import ImageSet, posttrain_key
from tasks.jobs import Job
from tasks.plans.facts import Jobs, PlanFacts, manifest_name


def posttrain_jobs(plan: PlanFacts) -> Jobs:
    """Return one job per student, seed and set."""
    config = plan.run.config.posttrain
    jobs = tuple(
        _posttrain_job(plan, student, seed, images_of)
        for student in range(len(config.students))
        for seed in config.seeds
        for images_of in config.sets
    )
    return {"posttrain": jobs}


def _posttrain_job(plan: PlanFacts, number: int, seed: int, images_of: SetName) -> Job:
    student = plan.run.config.posttrain.students[number]
    source: ImageSet = "random_real" if images_of == "random_real" else "distilled"
    images = plan.keys(manifest_name("recover", source))
    hard = images_of == "hard_labels"
    labels = [] if hard else plan.keys(manifest_name("relabel", source))
    key = posttrain_key(
        plan.run.config,
        student=student,
        seed=seed,
        images_of=images_of,
        images=images,
        labels=labels,
        teachers=[] if hard else plan.teacher_digests,
        class_hash=plan.index.class_hash,
        test=plan.index.test_fingerprint,
    )
    payload = {
        "student": number,
        "seed": seed,
        "set": images_of,
        "images": images,
        "labels": labels,
    }
    return Job(key, f"{student.title}_{images_of}_s{seed}", payload)
