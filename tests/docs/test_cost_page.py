"""The hours and bytes of docs/cost.md are those that the plan computes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distill_core.config.load import load_run
from flows import units
from flows.estimate import cost, workload
from flows.estimate.counts import count_images
from flows.estimate.rates import rates_of

PAGE = (Path(__file__).parents[2] / "docs" / "cost.md").read_text()
RUNS = {  # images to train and to test on; image-iterations per second
    "cda-in1k": ("[1281167,50000]", 1916),
    "cda-in21kp": ("[11060223,522500]", 528),
    "cda-in21k": ("[13104722,1092050]", 528),
}
GPUS = (1, 8, 64)


def table_of(preset: str) -> dict[str, list[float]]:
    """Return the hours of the page by stage."""
    rows = PAGE[PAGE.index(f"| `{preset}` |") :].splitlines()
    found: dict[str, list[float]] = {}
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if len(cells) != 6 or (cells[0] and cells[0] != f"`{preset}`"):
            break
        stage = cells[2].split(",")[0].replace("post-train", "posttrain")
        found[stage] = [float(cell) for cell in cells[3:]]
    return found


@pytest.mark.parametrize("preset", RUNS)
def test_the_page_has_the_hours_and_bytes_of_the_plan(preset: str) -> None:
    images, rate = RUNS[preset]
    config = load_run(preset, [f"data.images={images}"])
    counts = count_images(config)
    plan = workload.plan_run(config, test_images=counts.test)
    spent, page = cost.cost(config, plan, counts, rates_of(config, given=rate)), table_of(preset)
    assert page.keys() == {each.stage for each in spent.stages}
    for each in spent.stages:
        hours = [each.hours_on(cost.Machines(gpus, cores=8)) for gpus in GPUS]
        assert page[each.stage] == pytest.approx(hours, rel=0.05, abs=0.005), each.stage
    sizes = [units.size(plan.image_bytes), units.size(plan.label_bytes)]
    assert re.search(rf"`{preset}` \| {sizes[0]} \| {sizes[1]} ", PAGE), sizes
