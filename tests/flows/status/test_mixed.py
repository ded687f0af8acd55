"""A run whose shards were made in different environments is reported, and stays valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.maintenance.verify import verify_run
from flows.reports.report_data import gather, header
from flows.status.status import run_status
from flows.status.tables import mixture, to_json
from tasks.run import Run
from tasks.runs.finalise import close_stage
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tests.support.fabricate import finished_run
from tests.support.remade import make_again

AVX2 = {"cpu": "AVX2", "torch": "2.15.0"}
AVX512 = {"cpu": "AVX512", "torch": "2.15.0"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a finished run."""
    return finished_run(tmp_path)


def made_with(run: Run, *environments: dict[str, str]) -> None:
    """Make students again, with the same bytes, one in each environment."""
    stage, plan = StageId("posttrain"), JobPlan(run)
    for entry, environment in zip(plan.recorded(stage).entries, environments, strict=False):
        make_again(run.store, "posttrain", entry.key, {}, made_with=environment)
    close_stage(run, stage, plan.jobs(stage), allow_missing=0)


def test_a_mixture_of_processors_is_a_warning(run: Run) -> None:
    made_with(run, AVX2, AVX512)
    status = run_status(run)
    assert status.complete
    assert to_json(status)["mixed"] == {"cpu": ["AVX2", "AVX512"]}
    (line,) = mixture(run.name, status.mixed)
    assert "(cpu AVX2 and AVX512)" in line
    verdict = verify_run(run)
    assert verdict.mixed == status.mixed
    assert ("made with different", "cpu AVX2 and AVX512") in header(gather(run))


def test_one_environment_and_shards_of_older_versions_are_no_mixture(run: Run) -> None:
    made_with(run, AVX2, AVX2)
    status = run_status(run)
    assert status.mixed == {}
    assert mixture(run.name, status.mixed) == []
    assert [name for name, _ in header(gather(run)) if name == "made with different"] == []
