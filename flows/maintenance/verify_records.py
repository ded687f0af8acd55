"""Verification of a run's own records: each against its digest, its place and the run's plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from distill_core.data.index_files import check_index, description_path
from distill_core.errors import DataError
from distill_core.storage.identity import PATH as IDENTITY
from distill_core.storage.identity import find_identity
from distill_core.storage.manifest import Manifest, manifest_path
from distill_core.storage.records import check_seal
from tasks.gc.grammar import recognise
from tasks.gc.recorded_plan import MANIFEST_SUFFIX
from tasks.run import FILE as RUN
from tasks.run import Run
from tasks.runs.stage_status import difference, is_chained
from tasks.series import FILE as VERSION
from tasks.series import version_of
from tasks.stages.dataset_record import FILE as DATASET
from tasks.stages.dataset_record import read_dataset_record
from tasks.stages.inputs import NotReady
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tasks.stages.reads import has_current_keys

REWRITE = "Delete it: it is for people, and nothing is computed from it."
UNCHAINED = (
    "an earlier stage lists other files than it did when this manifest was written, so its shards "
    "may have been made from files that were replaced"
)


@dataclass(frozen=True)
class Damage:
    """One file that does not match the digests or the facts that are recorded about it."""

    path: str
    problem: str

    def __str__(self) -> str:
        """Return ``path: problem``."""
        return f"{self.path}: {self.problem}"


def check_records(run: Run) -> Iterator[Damage]:
    """Yield the damage of a run's records, without manifests, of its dataset and of its store."""
    try:
        find_identity(run.store)
    except DataError as error:
        yield Damage(IDENTITY, str(error))
    yield from _dataset(run)
    try:
        version = version_of(run)
    except DataError as error:
        yield Damage(run.path(VERSION), str(error))
    else:
        yield from () if version is None else _index(run, version.dataset)
    yield from _advisory(run)


def _dataset(run: Run) -> Iterator[Damage]:
    try:
        record = read_dataset_record(run)
    except DataError as error:
        yield Damage(run.path(DATASET), str(error))
        return
    if record is not None:
        yield from _index(run, record.dataset)
    elif any(
        name.endswith(MANIFEST_SUFFIX) and name != f"ingest{MANIFEST_SUFFIX}"
        for name in run.store.names(run.path())
    ):
        problem = (
            f"is missing, although later stages are complete. Run `distill resume {run.name}`."
        )
        yield Damage(run.path(DATASET), problem)


def _index(run: Run, dataset: str) -> Iterator[Damage]:
    try:
        check_index(run.store, dataset)
    except DataError as error:
        yield Damage(description_path(dataset), str(error))


def check_plan(run: Run, manifests: Mapping[StageId, Manifest]) -> Iterator[Damage]:
    """Yield the manifests that do not list the shards of the run's plan.

    Args:
        run: the run.
        manifests: those that exist and can be read.

    Raises:
        DataError: the plan reads a file that is damaged.
    """
    plan = JobPlan(run)
    for stage in dict.fromkeys(name.stage for name in manifests):
        try:
            jobs = plan.jobs(stage)
        except NotReady:
            continue  # the manifest that is missing is reported
        for name, part in jobs.items():
            manifest = manifests.get(name)
            if manifest is None:
                continue
            expected = [(job.shard, job.key) for job in part if job.shard not in manifest.missing]
            found = [(entry.shard, entry.key) for entry in manifest.entries]
            if not has_current_keys(manifest):  # with other numerics, only the names are the same
                expected, found = (
                    [(shard, "") for shard, _ in pairs] for pairs in (expected, found)
                )
            if found != expected:
                problem = difference(run, manifests, {name: part})
                yield Damage(manifest_path(run.name, str(name)), problem)
            elif not is_chained(plan, name, manifest):
                yield Damage(manifest_path(run.name, str(name)), UNCHAINED)


def _advisory(run: Run) -> Iterator[Damage]:
    """Yield the files for people that were changed; those of older versions have no digest."""
    records = {run.path(name) for name in (RUN, VERSION, DATASET)}
    for file in run.store.files(run.path()):
        name = recognise(file.path)
        if name is None or file.path in records or file.path.endswith(MANIFEST_SUFFIX):
            continue  # a file of somebody else, or a record that is checked above
        yield from _sealed(run, file.path)


def _sealed(run: Run, path: str) -> Iterator[Damage]:
    try:
        sealed = check_seal(run.store.read(path), where=run.store.uri(path), remedy=REWRITE)
    except DataError as error:
        yield Damage(path, str(error))
        return
    if run.sealed and not sealed:
        yield Damage(path, f"has no digest, so it was damaged or edited. {REWRITE}")
