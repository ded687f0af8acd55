"""The pods of the shipped cluster are large enough for the run that it starts."""

from __future__ import annotations

import pytest

from distill_core.config.load import load_run
from flows import units
from flows.estimate import workload
from flows.estimate.memory.making import Launch
from flows.estimate.memory.real_data import RealData
from flows.estimate.memory.stages import stage_memories
from tests.support import kuberay, kustomize
from tests.support.deployment import DEPLOY, read
from tests.support.manifest_rules import in_bytes

RESIDENT = 4  # a quarter of the memory may hold training images
DATASETS = {  # images to train and to test on, and of the largest class
    "cda-in1k": (1_281_167, 50_000, 1_300),
    "cda-in21kp": (11_060_223, 522_500, 1_500),
    "cda-in21k": (13_151_276, None, 3_047),
}


def test_each_stage_of_the_weekly_run_fits_the_pod_that_runs_it() -> None:
    (cluster,) = kustomize.read_all(DEPLOY / "k8s" / "base" / "raycluster.yaml")
    (group,) = cluster["spec"]["workerGroupSpecs"]
    (worker,) = group["template"]["spec"]["containers"]
    limits = worker["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"  # one worker in each pod
    memory = in_bytes(limits["memory"])
    (job,) = kustomize.read_all(DEPLOY / "k8s" / "redistill" / "cronjob.yaml")
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    preset = container["args"][2]
    train, test, largest = DATASETS[preset]
    cores = int(worker["resources"]["requests"]["cpu"])
    real = RealData(train, test, largest, decoders=cores, resident=memory / RESIDENT)
    needed = {
        each.stage: each.on("host").needed
        for each in stage_memories(load_run(preset), Launch("cuda"), real)
    }
    assert {"squeeze", "recover", "relabel", "posttrain"} <= needed.keys()
    kept_by_ray = int(group["rayStartParams"]["object-store-memory"])
    assert max(needed.values()) <= memory - kept_by_ray, needed
    assert needed["posttrain"] > 436_820 * 3 * 224**2  # it holds all distilled images
    volumes = {each["name"]: each["emptyDir"] for each in group["template"]["spec"]["volumes"]}
    assert in_bytes(volumes["tmp"]["sizeLimit"]) > needed["posttrain"]  # images beyond memory
    disks = sum(in_bytes(v["sizeLimit"]) for v in volumes.values() if v.get("medium") != "Memory")
    assert disks <= in_bytes(limits["ephemeral-storage"])


def test_the_cluster_may_grow_to_the_workers_that_runs_ask_for() -> None:
    (cluster,) = kustomize.read_all(DEPLOY / "k8s" / "base" / "raycluster.yaml")
    (group,) = cluster["spec"]["workerGroupSpecs"]
    workers = f"1:{group['maxReplicas']}"
    assert f"--workers={workers}" in read("k8s/redistill/cronjob.yaml")
    assert f"--workers {workers}" in read("k8s/one-run/rayjob.yaml")
    assert kuberay.problems(cluster, kuberay.SUPPORTED[0]) == []


@pytest.mark.parametrize("preset", ["cda-in21kp", "cda-in21k"])
def test_larger_runs_do_not_fit_a_small_pod_and_the_estimate_tells(preset: str) -> None:
    memories = stage_memories(load_run(preset), Launch("cuda"), RealData())
    (student,) = [each for each in memories if each.stage == "posttrain"]
    assert student.on("host").needed > 16 * 2**30
    assert "distilled images" in student.on("host").what


@pytest.mark.parametrize("preset", DATASETS)
def test_the_table_of_sizes_is_that_of_the_plan(preset: str) -> None:
    config, facts = load_run(preset), RealData(*DATASETS[preset], decoders=8)
    (row,) = (line for line in read("README.md").splitlines() if line.startswith(f"| `{preset}`"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    needed, memory, disk = (float(cell.removesuffix(" GiB")) * 2**30 for cell in cells[2:5])
    stages = {
        each.stage: each.on("host").needed for each in stage_memories(config, Launch("cuda"), facts)
    }
    assert needed == pytest.approx(stages["posttrain"], rel=0.02)
    assert stages["posttrain"] < memory - 2**30  # Ray's object store
    assert disk > stages["posttrain"]
    plan = workload.plan_run(config)
    sizes = f"{units.size(plan.image_bytes)} images, {units.size(plan.label_bytes)} labels"
    assert cells[5] == sizes
