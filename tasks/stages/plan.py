"""Which jobs a stage of a run consists of, with the key of each; pure but for reading manifests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tasks.stages.inputs import (
    Jobs,
    NotReady,
    RunInputs,
    dataset_of,
    manifest_name,
    shard_name,
    test_images_of,
)
from tasks.stages.names import STAGES, in_round, is_last, kind_of, round_of, stages_of
from tasks.stages.posttrain import judged_in_blocks, posttrain_jobs, validate_jobs
from tasks.stages.recover import recover_jobs, statistics_jobs
from tasks.stages.relabel import relabel_jobs
from tasks.stages.select import select_jobs
from tasks.stages.squeeze import squeeze_jobs

PLANNERS: Mapping[str, Callable[[RunInputs], Jobs]] = {
    "squeeze": squeeze_jobs,
    "statistics": statistics_jobs,
    "validate": validate_jobs,
}
ROUND_PLANNERS: Mapping[str, Callable[[RunInputs, int], Jobs]] = {
    "select": select_jobs,
    "recover": recover_jobs,
    "relabel": relabel_jobs,
    "posttrain": posttrain_jobs,
}


class JobPlan(RunInputs):
    """The jobs of one run, read lazily: later stages are known once earlier ones are done."""

    def jobs(self, stage: str) -> Jobs:
        """Return the jobs of a stage by manifest.

        Raises:
            NotReady: an earlier stage has no manifest yet.
        """
        if planner := PLANNERS.get(stage):
            return planner(self)
        kind, number = kind_of(stage), round_of(self.run.config, stage)
        jobs = ROUND_PLANNERS[kind](self, number)
        if number == 1:
            return jobs
        # What an earlier round gave up stays so: a student was trained without it since.
        given_up = frozenset(self.missing(in_round(self.run.config, kind, number - 1)))
        return {n: tuple(j for j in part if j.shard not in given_up) for n, part in jobs.items()}


__all__ = [
    "STAGES",
    "JobPlan",
    "Jobs",
    "NotReady",
    "dataset_of",
    "is_last",
    "judged_in_blocks",
    "kind_of",
    "manifest_name",
    "round_of",
    "shard_name",
    "stages_of",
    "test_images_of",
]
