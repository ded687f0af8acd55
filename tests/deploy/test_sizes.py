"""The pods of the shipped cluster are large enough for the run that it starts."""

from __future__ import annotations

import re

import pytest
import yaml

from distill_core.config.load import load_run
from flows.estimate.memory.making import Launch
from flows.estimate.memory.real_data import RealData
from flows.estimate.memory.stages import stage_memories
from tests.support.repository import ROOT

MANIFEST = (ROOT / "deploy" / "kuberay" / "rayjob.yaml").read_text()
OBJECT_STORE = 0.3  # of a node's memory, which Ray keeps for itself
RESIDENT = 4  # a quarter of the memory may hold training images
IMAGENET_1K = (1_281_167, 50_000, 1_300)


def test_each_stage_of_the_job_fits_the_pod_that_runs_it() -> None:
    job = next(tree for tree in yaml.safe_load_all(MANIFEST) if tree["kind"] == "RayJob")
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (worker,) = group["template"]["spec"]["containers"]
    limits = worker["resources"]["limits"]
    gibibytes = re.fullmatch(r"(\d+)Gi", limits["memory"])
    assert gibibytes is not None
    memory = int(gibibytes[1]) * 2**30
    assert limits["nvidia.com/gpu"] == "1"  # one worker in each pod
    preset = re.search(r"distill run (\S+) ", MANIFEST)
    assert preset is not None
    train, test, largest = IMAGENET_1K
    cores = int(worker["resources"]["requests"]["cpu"])
    real = RealData(train, test, largest, decoders=cores, resident=memory / RESIDENT)
    needed = {
        each.stage: each.on("host").needed
        for each in stage_memories(load_run(preset[1]), Launch("cuda"), real)
    }
    assert {"squeeze", "recover", "relabel", "posttrain", "validate"} <= needed.keys()
    assert max(needed.values()) <= (1 - OBJECT_STORE) * memory, needed
    assert needed["posttrain"] > 50_000 * 3 * 224**2  # it holds all distilled images


@pytest.mark.parametrize("preset", ["cda-in21kp", "cda-in21k"])
def test_larger_runs_do_not_fit_it_and_the_estimate_tells(preset: str) -> None:
    memories = stage_memories(load_run(preset), Launch("cuda"), RealData())
    (student,) = [each for each in memories if each.stage == "posttrain"]
    assert student.on("host").needed > 16 * 2**30
    assert "distilled images" in student.on("host").what
