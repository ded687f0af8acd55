"""The jobs of a run's stages, each with its key; pure but for reading manifests."""

from __future__ import annotations

from functools import cached_property

from distill_core.data.index import DatasetIndex
from distill_core.storage.manifest import load_manifest
from tasks.run import Run
from tasks.stages.inputs import Jobs, RunInputs
from tasks.stages.names import StageId
from tasks.stages.table import row_of, stages_of


class JobPlan(RunInputs):
    """The jobs of one run, read lazily: later stages are known once earlier ones are complete."""

    def jobs(self, stage: StageId) -> Jobs:
        """Return the jobs of a stage by manifest; none if the stage has no shards in this run.

        Raises:
            NotReady: an earlier stage has no manifest yet.
        """
        config, row = self.run.config, row_of(stage)
        if not row.occurs(config) or not row.has_shards(self.run):
            return {}
        jobs, number = row.jobs(self, stage), stage.last_round(config)
        if not row.per_round or number == 1:
            return jobs
        # Shards that an earlier round gave up stay missing: a student was trained without them.
        given_up = frozenset(self.missing(StageId(stage.kind, number - 1)))
        return {
            manifest: tuple(job for job in part if job.shard not in given_up)
            for manifest, part in jobs.items()
        }

    def built_on(self, manifest: StageId) -> dict[str, str]:
        """Return the digests of the manifests that a manifest builds on, by name; of those there.

        Each is read once.
        """
        digests = {name: self._digest(name) for name in _upstream(self.run, manifest)}
        return {str(name): digest for name, digest in digests.items() if digest is not None}

    def _digest(self, name: StageId) -> str | None:
        if name not in self._digests:
            run = self.run
            stored = load_manifest(run.store, run.name, str(name), sealed=run.sealed)
            self._digests[name] = None if stored is None else stored.digest
        return self._digests[name]

    @cached_property
    def _digests(self) -> dict[StageId, str | None]:
        return {}


class PlanWithIndex(JobPlan):
    """The jobs that a run would have if its dataset had another index."""

    def __init__(self, run: Run, index: DatasetIndex) -> None:
        super().__init__(run)
        self._index = index

    @cached_property
    def index(self) -> DatasetIndex:
        """Return the other index."""
        return self._index

    @cached_property
    def dataset(self) -> str:
        """Return the id of the other dataset."""
        return self._index.id

    @cached_property
    def test_images(self) -> int:
        """Return how many readable images its test split has."""
        return self._index.count_readable("test")


def _upstream(run: Run, manifest: StageId) -> tuple[StageId, ...]:
    """Return the manifests of earlier stages that a manifest builds on.

    Where a stage writes a manifest per image set, each builds on those of its own set.
    """
    stages, by_set = stages_of(run.config), row_of(manifest.stage).image_sets
    before = stages[: stages.index(manifest.stage)]
    return tuple(
        name
        for stage in before
        for name in manifests_of(run, stage)
        if not (by_set and row_of(stage).per_round) or name.image_set == manifest.image_set
    )


def manifests_of(run: Run, stage: StageId) -> tuple[StageId, ...]:
    """Return the manifests that a stage of this run writes and that later stages build on."""
    row = row_of(stage)
    if row.record or stage not in stages_of(run.config) or not row.has_shards(run):
        return ()
    if row.image_sets and stage.is_last:
        return tuple(stage.of(images) for images in run.config.image_sets)
    return (stage,)
