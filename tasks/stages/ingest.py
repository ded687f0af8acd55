"""The first stage: read, check and index the images; write down which dataset a run has."""

from __future__ import annotations

import time

import numpy as np

from distill_core.config.schema import RunConfig
from distill_core.data.class_words import find_words
from distill_core.data.index import DatasetIndex
from distill_core.data.ingest import ingest
from distill_core.errors import DataError
from distill_core.selection.distinct import starts_from_whole_images, too_small
from distill_core.squeeze.import_check import can_be_judged
from distill_core.storage.store import Store
from tasks.jobs import Receipt
from tasks.observer import Observer
from tasks.run import Run
from tasks.series import previous_index
from tasks.stages.dataset_record import FILE, read_dataset_record, record_dataset

IMAGE_SETS = {
    "distilled": "the real images that the images start from",
    "random_real": "the random real images of the baseline",
}


def run_ingest(run: Run, observer: Observer) -> None:
    """Index the dataset of a run; a version of a series keeps the class ids of the one before.

    Raises:
        DataError: the index was deleted, and the dataset has changed since it was made.
    """
    before = read_dataset_record(run)
    index = ingest_observed(run.config, run.store, previous_index(run), observer)
    if before is not None and before.dataset != index.id:
        raise DataError(
            f"{run.store.uri(run.path(FILE))}: states dataset {before.dataset}, but the images are "
            f"those of {index.id} now. Restore them, or register the config under another --name."
        )
    record_dataset(run, index)


def ingest_observed(
    config: RunConfig, store: Store, previous: DatasetIndex | None, observer: Observer
) -> DatasetIndex:
    """Index the dataset of a run, and report progress and what deserves attention.

    See `distill_core.data.ingest.ingest`.
    """
    started, name = time.monotonic(), config.data.name
    observer.stage_started("ingest", 1, 0)
    observer.job_started("ingest", name)

    def progress(done: int, total: int) -> None:
        observer.job_progress("ingest", name, done, total)

    def notice(text: str) -> None:
        observer.stage_notice("ingest", text)

    index = ingest(config.data, store, previous, progress=progress, notice=notice)
    for text in (*_repeated_images(config, index), *_unjudged_teachers(config, index)):
        notice(text)
    rows = index.train.num_rows + index.test.num_rows
    seconds = time.monotonic() - started
    observer.job_finished("ingest", Receipt(index.id, name, seconds=seconds, rows=rows))
    observer.stage_finished("ingest", seconds)
    return index


def _repeated_images(config: RunConfig, index: DatasetIndex) -> list[str]:
    """Return a sentence if a class has too few images for the real images that a run wants."""
    sets = [s for s in config.image_sets if starts_from_whole_images(config.recover_for(s))]
    sizes = index.class_sizes("train")
    small = too_small(np.array(list(sizes.values())), ipc=config.ipc)
    if not sets or not len(small):
        return []
    name = list(sizes)[small[0]]
    title = find_words(config.data, index.class_names).title(name)
    few, wanted = f"{len(small):,} of {len(sizes):,} classes", f"ipc = {config.ipc}"
    repeat = " and ".join(IMAGE_SETS[image_set] for image_set in sets)
    return [
        f"{few} have fewer training images than {wanted}, the smallest, {title!r}, has "
        f"{sizes[name]:,}: {repeat} repeat images. Lower ipc, or add images."
    ]


def _unjudged_teachers(config: RunConfig, index: DatasetIndex) -> list[str]:
    """Return a sentence if a teacher is imported whose accuracy the test images cannot show."""
    members = [config.squeeze.member(number) for number in range(1 + len(config.squeeze.pool))]
    if not any(member.checkpoint is not None for member in members):
        return []
    sizes = list(index.class_sizes("test").values())
    if can_be_judged(np.repeat(np.arange(len(sizes)), sizes)):
        return []
    accepted = (
        "The imported teacher is accepted; make sure that it knows these classes in this order."
    )
    if not sum(sizes):
        return [f"there are no test images to judge the teacher by. {accepted}"]
    return [
        f"too few test images to judge the teacher: of {sum(sizes):,}, the largest class has "
        f"{max(sizes):,}, and even a perfect teacher cannot be told from guesses. {accepted}"
    ]
