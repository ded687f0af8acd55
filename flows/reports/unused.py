"""Changes of a dataset or a config on which nothing in a version of a series depends."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from distill_core.config.schema import RunConfig
from distill_core.data.index import DatasetIndex
from distill_core.data.index_files import load_index
from distill_core.label_spaces.words import ClassWords
from flows.reports.diff import ClassDiff, compare_classes, named, requested_config, settings
from tasks.policy import TeacherPolicy
from tasks.run import Run
from tasks.stages.class_names import read_class_names
from tasks.stages.inputs import dataset_of


@dataclass(frozen=True)
class Unused:
    """A changed input that would give a version with the bytes of the current one."""

    run: str  # the current version, which stays
    policy: TeacherPolicy
    init: str  # of the images
    dataset: tuple[str, str]  # of the current version, now
    config: tuple[str, ...]  # first-level keys whose requested values differ
    classes: ClassDiff
    names: ClassWords = ClassWords({})  # of the classes

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able tree."""
        tree = asdict(self)
        del tree["names"]
        return tree


def unused(base: Run, config: RunConfig, index: DatasetIndex, policy: TeacherPolicy) -> Unused:
    """Return how an input differs from that of a version which it would not change.

    Args:
        base: the version.
        config: the requested config.
        index: of the current dataset.
        policy: for the teacher.
    """
    dataset = dataset_of(base)
    return Unused(
        run=base.name,
        policy=policy,
        init=config.recover.init,
        dataset=(dataset, index.id),
        config=settings(requested_config(base), config),
        classes=compare_classes(load_index(base.store, dataset), index),
        names=read_class_names(base),
    )


def lines(found: Unused) -> list[str]:
    """Return what a change means, and what would take it up."""
    changes = [
        f"classes {verb}: {named(found.names.titles(wnids))}"
        for verb, wnids in (
            ("changed", found.classes.changed),
            ("added", found.classes.added),
            ("removed", found.classes.removed),
        )
        if wnids
    ]
    if found.config:
        changes.append(f"other values of {', '.join(found.config)}")
    text = [
        f"{found.run} stays the current version: no teacher, image, label or student of it would "
        "change.",
        f"found: {'; '.join(changes) or 'the dataset has another id'}",
    ]
    if found.policy == "keep" and found.classes.changed:
        start = "noise" if found.init == "gaussian" else found.init
        text.append(
            f"The teacher is kept and the images start from {start}, so they do not depend on the "
            "contents of the classes. To take the change up, use --policy fine_tune or "
            "squeeze_again, or start from real images (recover.init=real)."
        )
    return text
