"""Which jobs a stage of a run consists of, with the key of each; pure but for reading manifests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tasks.plans.facts import (
    Jobs,
    NotReady,
    PlanFacts,
    dataset_of,
    manifest_name,
    shard_name,
    test_images_of,
)
from tasks.plans.images import recover_jobs, statistics_jobs
from tasks.plans.labels import relabel_jobs
from tasks.plans.students import judged_in_blocks, posttrain_jobs, validate_jobs
from tasks.plans.teachers import squeeze_jobs

PLANNERS: Mapping[str, Callable[[PlanFacts], Jobs]] = {
    "squeeze": squeeze_jobs,
    "statistics": statistics_jobs,
    "recover": recover_jobs,
    "relabel": relabel_jobs,
    "posttrain": posttrain_jobs,
    "validate": validate_jobs,
}
STAGES = ("ingest", *PLANNERS)  # in order


class JobPlan(PlanFacts):
    """The jobs of one run, read lazily: later stages are known once earlier ones are done."""

    def jobs(self, stage: str) -> Jobs:
        """Return the jobs of a stage by manifest.

        Raises:
            NotReady: an earlier stage has no manifest yet.
        """
        return PLANNERS[stage](self)


__all__ = [
    "STAGES",
    "JobPlan",
    "Jobs",
    "NotReady",
    "dataset_of",
    "judged_in_blocks",
    "manifest_name",
    "shard_name",
    "test_images_of",
]
