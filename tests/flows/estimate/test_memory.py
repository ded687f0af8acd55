"""Estimates of memory: the table of networks, and how an estimate follows from a config."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from distill_core.config.load import load_run
from distill_core.config.training import NETWORKS, ModelConfig
from distill_core.data.real_images import START_PIXELS
from distill_core.evaluation.metrics import EVALUATION_BATCH
from distill_core.models.build import build_model
from distill_core.models.spec import TeacherSpec
from distill_core.models.teacher import FORWARD_BATCH, FrozenTeacher
from distill_core.posttrain.epochs import RENDERED_BYTES
from distill_core.recover.batching import LAUNCH_IMAGES
from distill_core.training import streaming
from flows.estimate.memory import making, parts, real_data, training
from flows.estimate.memory.footprints import FOOTPRINTS, Footprint
from flows.estimate.memory.making import Launch
from flows.estimate.memory.networks import checkpoint_bytes, footprint, network_bytes
from flows.estimate.memory.parts import Memory
from flows.estimate.memory.real_data import RealData
from flows.estimate.memory.stages import stage_memories
from tests.support.peak_memory import split_arguments
from tests.support.repository import ROOT

CLASSES = 10


def measured(model: ModelConfig, side: int) -> Footprint:
    """Return what `FOOTPRINTS` lists, from a network and from what autograd keeps of it."""
    network = build_model(model, CLASSES, seed=0)
    numbers = sum(tensor.numel() for tensor in network.state_dict().values())
    spec = TeacherSpec(
        model=model,
        num_classes=CLASSES,
        class_hash="0" * 16,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        side=side,
        features=1,
        origin="test",
    )
    teacher = FrozenTeacher(network, spec, digest="0" * 64)
    own = {t.untyped_storage().data_ptr() for t in (*teacher.parameters(), *teacher.buffers())}
    kept: dict[int, int] = {}
    held: list[Tensor] = []  # so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    x = torch.zeros(2, 3, side, side, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        teacher(x, statistics=True)
    pixels = 2 * side**2
    return Footprint(numbers / 1e6, sum(kept.values()) / pixels, max(kept.values()) / pixels)


def test_every_network_has_a_footprint() -> None:
    assert FOOTPRINTS.keys() == set(NETWORKS)


@pytest.mark.parametrize(
    ("name", "width", "side"),
    [
        ("resnet18_small", 16, 32),
        ("convnet3", 32, 32),
        pytest.param("mobilenet_v2_small", None, 32, marks=pytest.mark.slow),
        pytest.param("resnet18", None, 224, marks=pytest.mark.slow),
        ("efficientnet_lite0", None, 224),
        pytest.param("regnet_y_400mf", None, 224, marks=pytest.mark.slow),
        pytest.param("densenet121", None, 224, marks=pytest.mark.slow),
        pytest.param("swin_t", None, 224, marks=pytest.mark.slow),
    ],
)
def test_a_footprint_is_that_of_the_network(name: str, width: int | None, side: int) -> None:
    model = ModelConfig(name=name, width=width)
    found, listed = measured(model, side), footprint(model, CLASSES, side=side)
    assert listed is not None
    assert listed.numbers == pytest.approx(found.numbers, rel=0.05, abs=0.01)
    assert listed.kept == pytest.approx(found.kept, rel=0.1)
    assert listed.largest == pytest.approx(found.largest, rel=0.1)


@pytest.mark.parametrize(
    ("ours", "name", "side", "rel"),
    [
        ("convnext_tiny", "timm:convnext_tiny", 224, 0.01),
        # Another implementation of the same network, which keeps its attention as CPUs do.
        ("vit_b_16", "timm:vit_base_patch16_224", 224, 0.05),
    ],
)
def test_a_network_of_timm_is_measured_without_values(
    ours: str, name: str, side: int, rel: float
) -> None:
    pytest.importorskip("timm")
    measured = footprint(ModelConfig(name=name), CLASSES, side=side)
    listed = footprint(ModelConfig(name=ours), CLASSES, side=side)
    assert measured is not None
    assert listed is not None
    for field in ("numbers", "kept", "largest", "trained"):
        assert getattr(measured, field) == pytest.approx(getattr(listed, field), rel=rel)


def test_a_network_that_timm_does_not_have_has_no_footprint() -> None:
    assert footprint(ModelConfig(name="timm:nowhere"), CLASSES, side=224) is None


def test_the_constants_are_those_of_the_stages() -> None:
    assert parts.FORWARD_BATCH == FORWARD_BATCH
    assert parts.EVALUATION_BATCH == EVALUATION_BATCH
    launch = {name: images * 32**2 for name, images in LAUNCH_IMAGES.items()}
    assert launch == making.LAUNCH_PIXELS
    assert (training.IN_FLIGHT, training.BLOCKS) == (
        streaming.IN_FLIGHT_BYTES,
        streaming.BLOCKS_BYTES,
    )
    for batch, side, decoders in ((256, 64, 1), (256, 64, 40), (1024, 224, 8), (16, 32, 3)):
        _, ahead = streaming.in_flight(batch, side, decoders)
        assert training._read_ahead(batch, side, decoders) == ahead + 1
    assert training.DECODING == START_PIXELS
    assert training.RENDERED == RENDERED_BYTES
    assert (real_data.RESIDENT, real_data.RESIDENT_SHARE) == (streaming.VARIABLE, streaming.SHARE)


def of(
    stage: str,
    *overrides: str,
    preset: str = "sre2l-tiny",
    launch: Launch = Launch(),
    real: RealData = RealData(),
) -> Memory:
    found = {m.stage: m for m in stage_memories(load_run(preset, overrides), launch, real)}
    return found[stage]


def test_an_estimate_follows_the_images_that_are_held_at_once() -> None:
    whole = of("recover")
    half = of("recover", "recover.batch_size=50", "recover.shard_classes=50")
    assert whole.least > 1.9 * half.least
    assert whole.needed > half.needed
    assert of("recover", "precision=bfloat16").needed < whole.needed
    one = Launch(groups=1)  # of 25 images, of which four go together
    lines = ("recover.batch_size=25", "recover.shard_classes=25")
    cifar = of("recover", preset="sre2l-cifar10")
    assert of("recover", preset="sre2l-cifar10", launch=one).needed < cifar.needed
    assert of("recover", *lines, launch=one).needed == of("recover", *lines).needed
    views = of("relabel", "relabel.scheme=logits")
    assert of("relabel", "relabel.scheme=online").needed < views.needed
    fewer = of("relabel", "relabel.scheme=logits", *lines, "recover.ipc_range=1")
    assert fewer.needed < views.needed


def test_a_committee_holds_the_activations_of_all_who_vote() -> None:
    pool = load_run("gvbsm-cifar100")
    single = pool.recover.model_copy(update={"committee": None, "teachers": (0,)})
    both, alone = (
        {m.stage: m.needed for m in stage_memories(run)}["recover"]
        for run in (pool, pool.model_copy(update={"recover": single}))
    )
    assert both > alone


def size_of(memory: Memory, words: str) -> float:
    """Return the bytes of the only part whose description has some words."""
    (part,) = [part for part in memory.parts if words in part.what]
    return part.size


def test_a_training_holds_its_images_and_a_part_of_the_test_split() -> None:
    real, area = RealData(train=100_000, test=10_000, decoders=3), 3 * 64**2
    squeeze = of("squeeze", real=real)
    assert size_of(squeeze, "test images") == 10_000 * area
    larger = of("squeeze", real=RealData(train=100_000, test=10**6))
    assert size_of(larger, "test images") == pytest.approx(2**28, rel=0.001)
    assert size_of(squeeze, "training images") == 100_000 * area
    assert size_of(squeeze, "3 decoders") == 3 * training.DECODER
    streamed = of("squeeze", real=RealData(train=100_000, test=10_000, resident=100_000 * area - 1))
    assert size_of(streamed, "read ahead") == 5 * 256 * area
    assert of("squeeze", "squeeze.training.batch_size=64").needed < of("squeeze").needed
    two = of("squeeze", "squeeze.training.processes=2")
    assert two.processes == 2
    assert size_of(two, "activations of 128 images") < size_of(squeeze, "activations of 256")
    assert squeeze.on("host").needed > (110_000 * area)
    assert {part.what for part in squeeze.on("device").parts} >= {"100,000 training images"}
    assert "its libraries" not in {part.what for part in squeeze.on("device").parts}


def test_a_choice_of_real_images_needs_memory_of_its_own() -> None:
    real, area = RealData(train=100_000, largest_class=500), 64**2
    stitched = of("recover", preset="rded-tiny", real=real)
    assert size_of(stitched, "1,500 crops") == 1_500 * area * parts.CROP_BYTES
    optimised = of("recover", preset="edc-tiny", real=real)
    assert optimised.needed > of("recover", preset="edc-tiny").needed - 1
    judged = of("recover", preset="herding-tiny", real=real)
    assert size_of(judged, "activations of 100 images") > 0
    drawn = of("recover", preset="random-real-tiny", real=real)
    assert drawn.needed < judged.needed < stitched.needed


def test_packs_are_held_twice_while_they_are_written() -> None:
    pack = ("data.pack={size: 64, pack_bytes: 134217728}",)
    assert size_of(of("pack", *pack), "pack, twice") == 2 * 2**27
    assert of("ingest").needed == of("pack", *pack).needed - 2 * 2**27


def test_an_imported_teacher_is_evaluated_and_one_that_is_taken_over_is_not() -> None:
    imported = ("squeeze.training=null", "squeeze.checkpoint=x.pth")
    squeeze = of("squeeze", *imported, real=RealData(test=10_000))
    assert size_of(squeeze, "evaluation of 500 images") > 0
    config = load_run("sre2l-tiny", ["squeeze.training=null", f"squeeze.reuse={32 * 'a'}"])
    assert "squeeze" not in {memory.stage for memory in stage_memories(config)}


def test_a_student_holds_the_distilled_images_their_labels_and_part_of_the_test_split() -> None:
    lines = ("relabel.scheme=features", "posttrain.micro_batch=32")
    student = of("posttrain", *lines, real=RealData(test=50_000))
    images = 10_000 * 3 * 64**2
    assert size_of(student, "10,000 distilled images") == images
    assert student.of_node(3) == pytest.approx(images + 3 * student.own.needed)
    assert sum(part.least for part in student.parts if "distilled" in part.what) == images
    assert size_of(student, "labels of 2 views") == 2 * 10_000 * (512 + training.DRAW_BYTES)
    assert size_of(student, "10,000 test images") == images  # evenly spaced
    whole = of("posttrain", "relabel.scheme=features")
    assert student.least < whole.least
    more = of("posttrain", *lines, "ipc=100", real=RealData(test=50_000))
    assert more.least - student.least == images


def test_stages_that_classify_real_images_hold_a_class_or_a_block() -> None:
    real, area = RealData(train=100_000, test=25_000), 3 * 64**2
    statistics = of("statistics", preset="lpld-tiny", real=real)
    assert size_of(statistics, "images of a class") == 500 * area
    larger = of("statistics", preset="lpld-tiny", real=RealData(1, 1, largest_class=900))
    assert size_of(larger, "images of a class") == 900 * area
    select = of("select", "recover.candidates=50", preset="cudd-tiny", real=real)
    assert size_of(select, "images of a class") == 50 * area
    validate = of("validate", real=real)
    assert size_of(validate, "test images") == 10_000 * area
    stages = [memory.stage for memory in stage_memories(load_run("sre2l-tiny"), real=RealData())]
    assert stages == ["ingest", "squeeze", "recover", "relabel", "posttrain"]


def test_nothing_of_a_network_is_estimated_where_it_or_the_number_of_classes_is_not_known() -> None:
    config = load_run("sre2l-tiny", ["squeeze.model={name: 'timm:nowhere'}"])
    found = {memory.stage: memory for memory in stage_memories(config)}
    assert list(found) == ["ingest", "squeeze", "posttrain"]
    assert [part.what for part in found["squeeze"].parts] == ["its libraries"]
    uncounted = config.model_copy(
        update={"data": config.data.model_copy(update={"num_classes": 0})}
    )
    assert list(stage_memories(uncounted)) == []


def test_the_networks_of_a_run_are_stored_once_and_students_twice() -> None:
    config = load_run("digits-demo")
    size = footprint(config.squeeze.model, 10, side=32)
    assert size is not None
    bare = config.model_copy(
        update={"posttrain": config.posttrain.model_copy(update={"students": ()})}
    )
    assert network_bytes(bare) == int(4e6 * size.numbers)
    trainings = len(config.posttrain.seeds) * len(config.posttrain.sets)
    student = footprint(config.posttrain.students[0], 10, side=32)
    assert student is not None
    one = config.model_copy(
        update={
            "posttrain": config.posttrain.model_copy(
                update={"students": config.posttrain.students[:1]}
            )
        }
    )
    expected = 4e6 * (size.numbers + 2 * trainings * student.numbers)
    assert network_bytes(one) == pytest.approx(expected, abs=1)


def test_the_checkpoints_of_the_largest_training_are_stored_three_times_at_most() -> None:
    config = load_run("digits-demo")
    student = max(footprint(s, 10, side=32).numbers for s in config.posttrain.students)  # type: ignore[union-attr]
    assert config.posttrain.optimizer.name == "adamw"
    assert checkpoint_bytes(config) == int(3 * 4e6 * student * 4)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is counted as on Linux")
@pytest.mark.parametrize(
    ("preset", "stage", "settings"),
    [
        ("digits-demo", "recover", ["recover.steps=2"]),
        ("cda-cifar10-cpu", "relabel", []),
        ("in1k-lite-cpu", "recover", ["recover.steps=1"]),
        ("cda-cifar10-cpu", "squeeze", ["train=50000", "test=10000"]),
        ("cda-cifar10-cpu", "posttrain", ["posttrain.epochs=1", "test=10000"]),
    ],
)
def test_the_peak_of_a_process_is_within_a_factor_of_the_estimate(
    preset: str, stage: str, settings: list[str]
) -> None:
    command = [sys.executable, "-m", "tests.support.peak_memory", preset, stage, *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    peak = int(done.stdout)
    real, overrides = split_arguments(settings)
    assert 0.7 <= of(stage, *overrides, preset=preset, real=real).needed / peak <= 1.5
