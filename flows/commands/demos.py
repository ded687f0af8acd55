"""The first and last lines of the demos."""

from __future__ import annotations

import sys

from distill_core.config.schema import RunConfig
from flows import terminal
from flows.commands import summary
from flows.estimate import workload
from flows.reports import report_data
from tasks.run import Run

DIGITS, IMAGENET = "digits-demo-16px", "in1k-lite-cpu"  # presets
# Measured: 4 min 9 s on two cores with AVX-512, while tests ran beside it.
IMAGENET_MINUTES = "less than five minutes"
MINUTES = "one to three"  # measured: 74 s on two cores that are limited to AVX2


def opening(config: RunConfig) -> list[str]:
    """Return the steps of the demo."""
    plan = workload.plan_run(config)
    students = ", ".join(student.title for student in config.posttrain.students)
    return [
        f"distill demo: {config.data.name}, {config.data.num_classes} classes, on this machine.",
        "  1 ingest    read, check and index the real images",
        f"  2 squeeze   train the teacher, {config.squeeze.model.title}",
        f"  3 recover   optimise {plan.images} images ({config.ipc} per class) in {plan.shards} "
        f"shards, {config.recover.steps} steps each",
        f"  4 relabel   store soft labels of {config.relabel.stored_views} views of each image",
        f"  5 posttrain train {plan.students} students ({students}) and test them on real images",
        "  6 report    write one HTML file",
        "Prefect orders the stages and Ray runs the shards. On two cores all of it takes about "
        f"{MINUTES} minutes, the start of Prefect and Ray included.",
        "You can stop it at any time: run the same command again and it continues.",
    ]


def closing(run: Run) -> list[str]:
    """Return the path of the store, and a command that opens the report."""
    page = summary.place(run, run.path(report_data.REPORT))
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    return [
        f"store:  {summary.shorter(run.store.url)}",
        f"look:   {opener} {page}",
    ]


def imagenet_opening(config: RunConfig) -> list[str]:
    """Return the steps of the demo on ImageNet-1K."""
    classes = len(config.data.keep) or config.data.num_classes
    plan = workload.plan_run(config)
    return [
        f"distill demo: {classes} classes of ImageNet-1K, {config.data.side} px, on this machine.",
        "  1 ingest    read the list of classes; no dataset and no real image is read",
        f"  2 squeeze   import the teacher, {config.squeeze.model.title}, from its package",
        f"  3 recover   optimise {plan.images} images ({config.ipc} per class) from noise, "
        f"{config.recover.steps} steps",
        f"  4 relabel   store soft labels over {config.data.num_classes:,} classes of "
        f"{config.relabel.stored_views} views of each image",
        "  5 report    write one HTML file, and ask networks that took no part what they see",
        "Post-training is left out: without a dataset there are no images to test a student on.",
        f"On two cores all of it takes {IMAGENET_MINUTES}, the start of Prefect and Ray included.",
        "You can stop it at any time: run the same command again and it continues.",
    ]


def print_recognition(run: Run) -> None:
    """Print whether networks of ImageNet-1K recognise the images, and where their picture is."""
    from flows.reports import recognised  # imports torch

    images = recognised.distilled_images(run)
    found = recognised.recognised(images, run.config.data.num_classes)
    body = recognised.cells(found, teacher=run.config.squeeze.model.name)
    terminal.print_table(terminal.table(recognised.HEADER, body))
    picture = recognised.write_picture(run, images)
    terminal.print_lines(f"images: {summary.place(run, picture)}")
