"""What stages compute and read, and the hours that follow; by hand, and at a published size."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.config.load import load_run
from distill_core.config.packs import PackConfig
from distill_core.config.schema import RunConfig
from distill_core.config.training import PoolMember
from distill_core.squeeze import teacher
from flows.estimate import cost, passes, tables, workload
from flows.estimate.cost import Cost, Machines
from flows.estimate.counts import Counts, count_images
from flows.estimate.passes import StageWork, stage_works
from flows.estimate.rates import Rate, rates_of
from tests.support.datasets import data_config, image_folder
from tests.support.fabricate import preset_file

KNOWN = Counts(1000, 200, "counted")
UNKNOWN = Counts(None, None, "")
LARGE = (
    "data.num_classes=10450",
    "data.side=224",
    "data.images=[11060223,522500]",
    "ipc=20",
    "recover.steps=2000",
    "recover.batch_size=100",
    "squeeze.model={name: resnet18}",
)


@pytest.fixture
def tiny(tmp_path: Path) -> RunConfig:
    """Return the tiny config: 3 classes, 2 images each, 2 students with 3 seeds or sets."""
    return load_run(str(preset_file(tmp_path)))


def works(config: RunConfig, counts: Counts) -> dict[str, StageWork]:
    """Return the work of each stage."""
    plan = workload.plan_run(config, test_images=counts.test)
    shards = workload.shards_by_stage(config, test_images=counts.test)
    return {each.stage: each for each in stage_works(config, plan, counts, shards)}


def spent(config: RunConfig, counts: Counts, *, rate: float, price: float | None = None) -> Cost:
    """Return the cost at a rate that is given."""
    plan = workload.plan_run(config, test_images=counts.test)
    return cost.cost(config, plan, counts, rates_of(config, given=rate), price=price)


def test_every_stage_has_its_passes_by_hand(tiny: RunConfig) -> None:
    found, training = works(tiny, KNOWN), tiny.squeeze.training
    assert training is not None
    assert found.keys() == {"ingest", "squeeze", "recover", "relabel", "posttrain"}
    assert found["ingest"].passes == {"check": 1200}
    seen, judged = 1000 * training.epochs, 200 * passes._evaluations(training.epochs)
    # Both splits fit the memory, so each image is decoded once.
    assert found["squeeze"].passes == {"training": seen, "forward": judged, "decode": 1200}
    assert found["recover"].passes == {"iteration": 6 * 4, "decode": 6}  # the baseline is real
    assert found["relabel"].passes == {"view": 6 * 2 * 2}
    times = 2 * -(-tiny.posttrain.epochs // tiny.posttrain.evaluate_every)  # last and average
    assert found["posttrain"].passes == {
        "training": 6 * 6 * tiny.posttrain.epochs,
        "forward": 6 * 200 * times,
        "decode": 6 * 200,
    }


def test_a_large_test_split_is_read_once_for_each_student(tiny: RunConfig) -> None:
    found = works(tiny, Counts(1000, 50_000, "counted"))
    assert found["validate"].passes == {"forward": 6 * 2 * 50_000, "decode": 6 * 50_000}
    assert found["posttrain"].passes["decode"] == 6 * 10_000  # a part of it, while they learn


def test_counts_that_are_not_known_leave_out_what_depends_on_them(tiny: RunConfig) -> None:
    found = works(tiny, UNKNOWN)
    assert found["squeeze"].passes["training"] is None
    assert found["recover"].passes == {"iteration": 24, "decode": 6}
    at_rate = spent(tiny, UNKNOWN, rate=100)
    assert at_rate.unknown == ("squeeze", "posttrain", "validate")
    (first, *_) = tables.cost_lines(at_rate)
    assert "without squeeze, posttrain, validate" in first
    assert spent(tiny, KNOWN, rate=100).unknown == ()


def test_teachers_that_are_trained_cost_their_epochs_and_imported_ones_their_judgement(
    tiny: RunConfig,
) -> None:
    training = tiny.squeeze.training
    assert training is not None
    pool = tiny.squeeze.model_copy(update={"pool": (PoolMember(model=tiny.squeeze.model),)})
    two = tiny.model_copy(update={"squeeze": pool})
    assert works(two, KNOWN)["squeeze"].passes["training"] == 2000 * training.epochs
    imported = tiny.squeeze.model_copy(update={"training": None, "checkpoint": "teacher.pth"})
    free = tiny.model_copy(update={"squeeze": imported})
    assert works(free, KNOWN)["squeeze"].passes == {"forward": 200, "decode": 200}


@pytest.mark.parametrize("epochs", [1, 8, 19, 20, 21, 80, 90, 200])
def test_a_teacher_is_evaluated_as_often_as_the_plan_counts(epochs: int) -> None:
    assert passes.EVALUATIONS == teacher.EVALUATIONS
    between = sum(teacher._is_evaluated(epoch, epochs) for epoch in range(epochs))
    assert passes._evaluations(epochs) == between + 1
    assert passes._evaluations(0) == 1


def test_training_images_that_fit_no_memory_are_read_in_every_epoch(tiny: RunConfig) -> None:
    many = Counts(10**8, 200, "counted")
    training = tiny.squeeze.training
    assert training is not None
    found = works(tiny, many)["squeeze"].passes
    assert found["decode"] == 10**8 * training.epochs + 200


def test_class_statistics_read_every_image_for_every_teacher(tmp_path: Path) -> None:
    terms = "recover.terms={cross_entropy: 1.0, class_bn_statistics: 0.01}"
    shape = ("recover.composition=one_class", "recover.batch_size=2")
    config = load_run(str(preset_file(tmp_path)), (terms, *shape))
    assert works(config, KNOWN)["statistics"].passes == {"forward": 1000, "decode": 1000}


def test_the_cost_of_a_published_run_follows_from_its_counts(tmp_path: Path) -> None:
    config = load_run(str(preset_file(tmp_path)), LARGE)
    counts = count_images(config)
    assert counts == Counts(11_060_223, 522_500, "stated by data.images")
    plan = workload.plan_run(config, test_images=counts.test)
    assert plan.images == 209_000
    assert plan.shards == 105 * 2
    assert plan.image_iterations == 418_000_000
    assert plan.scheme == "features"
    found = spent(config, counts, rate=25_500, price=2.0)
    hours = {each.stage: each.gpu_hours for each in found.stages}
    assert hours["recover"] == pytest.approx(4.55, abs=0.01)
    assert found.shard_seconds == pytest.approx(100 * 10 * 2000 / 25_500)
    assert found.usd == pytest.approx(2 * found.hours)
    ingest = next(each for each in found.stages if each.stage == "ingest")
    assert ingest.work.shards == 2828  # parts of 4,096 images
    assert ingest.cpu_hours == pytest.approx(11_582_723 / 900 / 3600)


def test_time_is_limited_by_shards_and_by_reading() -> None:
    work = StageWork("statistics", {"forward": 1, "decode": 1}, shards=10, processes=1)
    stage = cost.StageCost(work, gpu_hours=20.0, cpu_hours=400.0)
    assert stage.hours_on(Machines(gpus=1, cores=8)) == 400 / 8
    assert stage.hours_on(Machines(gpus=6, cores=80)) == 20 / 5  # two rounds of ten shards
    assert stage.hours_on(Machines(gpus=64, cores=8)) == 400 / 80  # ten shards keep ten busy
    assert stage.hours_on(Machines(gpus=64, cores=40)) == 2.0
    unknown = cost.StageCost(work, gpu_hours=None, cpu_hours=1.0)
    assert unknown.hours_on(Machines(gpus=1, cores=8)) is None


@pytest.mark.parametrize("rate", [100.0, 2_000.0, 25_500.0])
def test_the_recommended_range_makes_a_shard_last_five_to_fifteen_minutes_if_it_can(
    rate: float, tmp_path: Path
) -> None:
    config = load_run(str(preset_file(tmp_path)), LARGE)
    found = spent(config, UNKNOWN, rate=rate)
    assert found.ipc_range is not None
    seconds = 100 * 2000 / rate * found.ipc_range
    low, high = cost.SHARD_SECONDS
    assert 1 <= found.ipc_range <= 20
    assert low <= seconds <= high or found.ipc_range in (1, 20)


def test_rates_that_were_measured_win_over_derived_and_assumed_ones(tiny: RunConfig) -> None:
    rates = rates_of(tiny, measured={"recover": 10.0, "forward": 50.0, "decode": 7.0})
    assert rates["iteration"] == Rate(10.0, "measured")
    assert rates["forward"] == Rate(50.0, "measured")
    assert rates["decode"] == Rate(7.0, "measured")
    assert rates["training"] == Rate(pytest.approx(20 / 3), "derived from recover")
    assert rates["check"].source == "assumed"
    assert "iteration" not in rates_of(tiny)


def test_without_the_speed_of_a_gpu_the_plan_tells_how_to_get_it(tiny: RunConfig) -> None:
    plan = workload.plan_run(tiny)
    none = cost.cost(tiny, plan, KNOWN, rates_of(tiny))
    assert (none.hours, none.usd, none.ipc_range) == (0, None, None)
    assert tables.cost_lines(none)[0].startswith("Add --calibrate, or --rate")
    tree = tables.to_json(cost.Estimate(plan, KNOWN, none, {}))
    assert tree["stages"]["recover"]["gpu_hours"] is None
    assert tree["stages"]["ingest"]["cpu_hours"] > 0


def requests(config: RunConfig, *changes: tuple[str, object]) -> int:
    """Return the reads of a run whose data has some changes."""
    data = config.data.model_copy(update=dict(changes))
    changed = config.model_copy(update={"data": data})
    return spent(changed, Counts(100_000, 10_000, "counted"), rate=1.0).requests.reads


def test_images_of_their_own_take_a_request_each_and_packs_share_them(tiny: RunConfig) -> None:
    pack = PackConfig(size=256)
    large = ("side", 224)
    files = requests(tiny, ("format", "imagefolder"), large)
    archives = requests(tiny, ("format", "tars"), large)
    packed = requests(tiny, ("format", "tars"), ("pack", pack), large)
    epochs = tiny.squeeze.training.epochs if tiny.squeeze.training else 0
    assert files > 110_000 + 100_000 * epochs
    assert files - archives == pytest.approx(110_000, rel=0.05)  # ingestion alone
    assert packed < archives / 10
    found = spent(tiny, KNOWN, rate=1.0).requests
    assert found.usd == pytest.approx(found.reads * 0.4e-6 + found.writes * 5e-6)


@pytest.mark.parametrize(
    ("rule", "test"), [("fraction:0.25", 2), ("first:1", 2), ("per_class:9", 6)]
)
def test_a_dataset_that_a_rule_divides_is_counted(
    rule: str, test: int, tmp_path: Path, tiny: RunConfig
) -> None:
    data = data_config(image_folder(tmp_path / "images"), split=rule)
    found = count_images(tiny.model_copy(update={"data": data}))
    assert found == Counts(6 - test, test, f"counted, divided by {rule}")


def test_bytes_are_told_by_set(tiny: RunConfig, tmp_path: Path) -> None:
    plan = workload.plan_run(tiny)
    said = dict(tables.lines(plan, KNOWN))
    assert "random_real" in said["image bytes"]
    assert "random_real" in said["label bytes"]
    assert plan.image_bytes == sum(plan.set_image_bytes.values())
    one = load_run(str(preset_file(tmp_path)), ["posttrain.sets=[distilled]"])
    assert "distilled" not in dict(tables.lines(workload.plan_run(one), KNOWN))["label bytes"]


def test_packs_are_planned_with_their_time_and_their_bytes_and_make_reading_faster(
    tmp_path: Path,
) -> None:
    """8 of the 10,450 classes have 225 MB; twice as many would be more than a pack."""
    path = str(preset_file(tmp_path))
    plain = load_run(path, LARGE)
    packed = load_run(path, [*LARGE, "data.pack={size: 256}"])
    counts = count_images(packed)
    pack = works(packed, counts)["pack"]
    assert pack.passes == {"pack": 11_060_223 + 522_500}
    assert pack.shards == -(-10_450 // 8) + -(-10_450 // 128)
    hours = {
        each.stage: each.cpu_hours
        for config in (plain, packed)
        for each in spent(config, counts, rate=1000).stages
        if each.stage == "pack" or config == plain
    }
    assert hours["pack"] == pytest.approx((11_060_223 + 522_500) / (0.6 * 460) / 3600)
    squeeze = next(e for e in spent(packed, counts, rate=1000).stages if e.stage == "squeeze")
    assert squeeze.cpu_hours == pytest.approx((hours["squeeze"] or 0) / 3)
    assert "pack" not in works(plain, counts)
    lines = dict(tables.lines(workload.plan_run(packed), counts))
    assert lines["packs"] == "about 308 GB, about 26.6 kB an image"
    assert "packs" not in dict(tables.lines(workload.plan_run(plain), counts))
    original = load_run(path, [*LARGE, "data.pack={encoding: original}"])
    rates = rates_of(original)
    assert rates["decode"] == rates_of(plain)["decode"]
    assert rates["pack"].per_second > rates_of(packed)["pack"].per_second
