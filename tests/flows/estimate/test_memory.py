"""Estimates of memory: the table of networks, and how an estimate follows from a config."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from distill_core.config.load import load_run
from distill_core.config.training import NETWORKS, ModelConfig
from distill_core.models.build import build_model
from distill_core.models.spec import TeacherSpec
from distill_core.models.teacher import FORWARD_BATCH, FrozenTeacher
from distill_core.recover.batching import LAUNCH_IMAGES
from flows.estimate import memory
from flows.estimate.footprints import FOOTPRINTS, Footprint, footprint, network_bytes
from flows.estimate.memory import Launch, Memory, stage_memories
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
    assert footprint(ModelConfig(name="timm:resnet18"), CLASSES) is None


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
    found, listed = measured(model, side), footprint(model, CLASSES)
    assert listed is not None
    assert listed.numbers == pytest.approx(found.numbers, rel=0.05, abs=0.01)
    assert listed.kept == pytest.approx(found.kept, rel=0.1)
    assert listed.largest == pytest.approx(found.largest, rel=0.1)


def test_the_constants_are_those_of_the_stages() -> None:
    assert memory.FORWARD_BATCH == FORWARD_BATCH
    launch = {name: images * 32**2 for name, images in LAUNCH_IMAGES.items()}
    assert launch == memory.LAUNCH_PIXELS


def of(
    stage: str, *overrides: str, preset: str = "sre2l-tiny", launch: Launch = Launch()
) -> Memory:
    found = {m.stage: m for m in stage_memories(load_run(preset, overrides), launch)}
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
    (recover, _) = stage_memories(pool)
    single = pool.recover.model_copy(update={"committee": None, "teachers": (0,)})
    (alone, _) = stage_memories(pool.model_copy(update={"recover": single}))
    assert recover.needed > alone.needed


def test_nothing_is_estimated_where_a_network_or_the_number_of_classes_is_not_known() -> None:
    config = load_run("sre2l-tiny", ["squeeze.model={name: 'timm:resnet18'}"])
    assert list(stage_memories(config)) == []
    uncounted = config.model_copy(
        update={"data": config.data.model_copy(update={"num_classes": 0})}
    )
    assert list(stage_memories(uncounted)) == []


def test_the_networks_of_a_run_are_stored_once_and_students_twice() -> None:
    config = load_run("digits-demo")
    size = footprint(config.squeeze.model, 10)
    assert size is not None
    bare = config.model_copy(
        update={"posttrain": config.posttrain.model_copy(update={"students": ()})}
    )
    assert network_bytes(bare) == int(4e6 * size.numbers)
    trainings = len(config.posttrain.seeds) * len(config.posttrain.sets)
    student = footprint(config.posttrain.students[0], 10)
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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is counted as on Linux")
@pytest.mark.parametrize(
    ("preset", "stage", "settings"),
    [
        ("digits-demo", "recover", ["recover.steps=2"]),
        ("cda-cifar10-cpu", "relabel", []),
        ("in1k-lite-cpu", "recover", ["recover.steps=1"]),
    ],
)
def test_the_peak_of_a_process_is_within_a_factor_of_the_estimate(
    preset: str, stage: str, settings: list[str]
) -> None:
    command = [sys.executable, "-m", "tests.support.peak_memory", preset, stage, *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    peak = int(done.stdout)
    assert 0.7 <= of(stage, *settings, preset=preset).needed / peak <= 1.5
