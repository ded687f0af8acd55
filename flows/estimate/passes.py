"""Work of each stage in passes over images, from the config and the image counts.

The units are those whose rates calibration measures, so that hours follow by division.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from distill_core.config.schema import RunConfig
from distill_core.config.training import SqueezeConfig
from distill_core.data.readers.parts import PART_RECORDS
from distill_core.evaluation.blocks import rows_in_training
from flows.estimate.counts import Counts
from flows.estimate.memory.training import BLOCKS
from flows.estimate.workload import Plan
from tasks.stages.table import STAGES

Unit = Literal[
    "iteration",  # one image through a step of recover: a pass forward and back to its pixels
    "view",  # one view of an image rendered, labelled and encoded
    "training",  # one image through a training step: a pass forward, back, and to the weights
    "forward",  # one image through a network
    "decode",  # one real image fetched and decoded
    "check",  # likewise, when it is ingested
    "pack",  # likewise, when it is copied into a pack
]
ON_CPU: frozenset[Unit] = frozenset({"decode", "check", "pack"})
EVALUATIONS = 20  # of a teacher in training, about; see `distill_core.squeeze.teacher`
RESIDENT = 16e9  # bytes of training images that a worker keeps: a quarter of 64 GB
WEIGHTS = 2  # of a student that are judged: the last ones and their average


@dataclass(frozen=True)
class StageWork:
    """The work of one stage over all of its shards."""

    stage: str
    passes: Mapping[Unit, int | None]  # None: the number of real images is not known
    shards: int | None  # in all rounds; None: not known before the dataset is
    processes: int  # that work on one shard together

    @property
    def most_workers(self) -> int | None:
        """Return how many workers can be busy at the same time."""
        return None if self.shards is None else self.shards * self.processes


def stage_works(
    config: RunConfig, plan: Plan, counts: Counts, shards: Mapping[str, int | None]
) -> Iterator[StageWork]:
    """Yield the work of every stage that has any, in order; the rounds of a stage together.

    Args:
        config: of the run.
        plan: of the same run.
        counts: real images.
        shards: see `workload.shards_by_stage`.
    """
    for kind, passes in _passes(config, plan, counts).items():
        known = {unit: number for unit, number in passes.items() if number != 0}
        names = [name for name in shards if name.partition("-")[0] == kind]
        if known and names:
            found = [shards[name] for name in names]
            total = _sum(found)
            if kind == "recover" and total is not None and known.get("iteration"):
                total //= len(config.image_sets)  # random real images take no iterations
            if kind == "ingest" and total is None and counts.total is not None:
                total = -(-counts.total // PART_RECORDS)
            yield StageWork(kind, known, total, STAGES[kind].processes(config))


def _passes(config: RunConfig, plan: Plan, counts: Counts) -> dict[str, Mapping[Unit, int | None]]:
    return {
        "ingest": {"check": counts.total},
        "pack": {} if config.data.pack is None else {"pack": counts.total},
        "squeeze": _squeeze(config, counts),
        "statistics": _statistics(config, counts),
        "select": _select(config, plan, counts),
        "recover": {"iteration": plan.image_iterations, "decode": _starts(config, plan, counts)},
        "relabel": {"view": plan.views if plan.label_shards else 0},
        "posttrain": _posttrain(config, plan, counts),
        "validate": _validate(plan, counts),
    }


def _posttrain(config: RunConfig, plan: Plan, counts: Counts) -> Mapping[Unit, int | None]:
    """Return the passes of all students, which are evaluated as they learn."""
    post = config.posttrain
    if not plan.students:
        return {}
    rows = None if counts.test is None else rows_in_training(counts.test, post.validation_shard)
    tests = counts.test if rows is None else len(rows)
    times = WEIGHTS * plan.students * -(-post.epochs // post.evaluate_every)
    labelled = len(config.relabel.teachers) if plan.scheme == "online" else 0
    return {
        "training": plan.student_images,
        "forward": _sum((_times(tests, times), labelled * plan.student_images)),
        "decode": _times(tests, plan.students),
    }


def _validate(plan: Plan, counts: Counts) -> Mapping[Unit, int | None]:
    """Return the passes over a test split that is too large to be evaluated in training."""
    if plan.validation_shards == 0:
        return {}
    return {
        "forward": _times(counts.test, WEIGHTS * plan.students),
        "decode": _times(counts.test, plan.students),
    }


def _squeeze(config: RunConfig, counts: Counts) -> Mapping[Unit, int | None]:
    """Return the passes of all teachers that are trained, or imported and judged."""
    members = [config.squeeze.member(number) for number in range(1 + len(config.squeeze.pool))]
    members = [member for member in members if member.reuse is None]
    trained = [member for member in members if _epochs(member)]
    seen = _times(counts.train, sum(map(_epochs, trained)))
    judged = [(_judged(each, counts.test), _evaluations(_epochs(each))) for each in members]
    tests, area = _sum(_times(*each) for each in judged), 3 * config.data.side**2
    whole = any(each.training and each.training.crop_from == "image" for each in trained)
    stays = not whole and area * (counts.train or 0) <= RESIDENT
    test_stays = area * (counts.test or 0) <= BLOCKS
    read = _times(counts.train, len(trained)) if stays else seen
    read_tests = _sum(images for images, _ in judged) if test_stays else tests
    return {"training": seen, "forward": tests, "decode": _sum((read, read_tests))}


def _evaluations(epochs: int) -> int:
    """Return how often a teacher is evaluated; one that is imported once."""
    return 1 if epochs == 0 else 1 + (epochs - 1) // -(-epochs // EVALUATIONS)


def _epochs(member: SqueezeConfig) -> int:
    trained = member.training is not None and member.checkpoint is None
    return member.training.epochs if trained and member.training is not None else 0


def _judged(member: SqueezeConfig, test: int | None) -> int | None:
    """Return the test images that a teacher is judged on."""
    sample = None if member.imported is None else member.imported.sample
    return test if test is None or sample is None else min(sample, test)


def _statistics(config: RunConfig, counts: Counts) -> Mapping[Unit, int | None]:
    """Return the passes over every training image for each teacher that is compared."""
    if not config.recover.needs_class_statistics:
        return {}
    images = _times(counts.train, len(config.recover.teachers))
    return {"forward": images, "decode": images}


def _select(config: RunConfig, plan: Plan, counts: Counts) -> Mapping[Unit, int | None]:
    """Return the passes over the candidates of each round, by the teacher and later a student."""
    if config.recover.init != "judged":
        return {}
    candidates = _at_most(counts.train, config.recover.candidates, plan.classes)
    later = len(plan.rounds)
    return {
        "forward": _times(candidates, 1 + 2 * later),
        "decode": _times(candidates, 1 + later),
    }


def _starts(config: RunConfig, plan: Plan, counts: Counts) -> int | None:
    """Return the real images that the image sets start from."""
    total = 0
    for image_set in config.image_sets:
        recover = config.recover_for(image_set)
        if recover.mosaic is not None:
            ranges = -(-config.ipc // recover.ipc_range)
            candidates = _at_most(counts.train, recover.mosaic.images, plan.classes)
            if candidates is None:
                return None
            total += candidates * ranges
        elif recover.init != "gaussian":
            total += plan.images
    return total


def _at_most(total: int | None, per_class: int | None, classes: int) -> int | None:
    if total is None or per_class is None:
        return total
    return min(total, per_class * classes)


def _times(count: int | None, factor: int) -> int | None:
    return 0 if factor == 0 else None if count is None else count * factor


def _sum(counts: Iterable[int | None]) -> int | None:
    known = list(counts)
    return None if None in known else sum(each or 0 for each in known)
