"""The report of the checks before a run: every problem at once, numbered, with exit code 2."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from distill_core.config.load import load_run
from distill_core.config.training import ModelConfig
from distill_core.data.index_files import load_index
from distill_core.data.readers.parquet import ParquetReader
from distill_core.errors import ConfigError, DataError, DistillError, Problems
from distill_core.label_spaces.facts import CIFAR10
from distill_core.models.build import build_model
from distill_core.models.importing import read_weights
from distill_core.storage.digest import sha256
from distill_core.storage.store import Store
from flows.estimate.memory.making import Launch
from flows.estimate.memory.parts import BASE
from flows.estimate.memory.stages import stage_memories
from flows.runs import preflight
from flows.runs.checks import machine
from flows.runs.checks.request import Check, Request, make
from tasks.execution import Execution
from tasks.pools import device
from tasks.pools.device import NodeMemory
from tasks.run import planned_run
from tasks.stages.inputs import dataset_of
from tests.support.cli import Distill
from tests.support.datasets import data_config, image_folder, png, write_parquet
from tests.support.fabricate import preset_file
from tests.support.pipeline import execute, tiny_run

GB = 10**9


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """Return a dataset as on the hub: a test split without labels, and a validation split."""
    folder = tmp_path / "hub"
    for split, labels in (("train", (0, 1)), ("validation", (0, 1)), ("test", (-1, -1))):
        rows = [(png(label + 7), label) for label in labels]
        write_parquet(folder / f"{split}-00000-of-00001.parquet", rows, names=("cat", "dog"))
    return folder


def preset_of(folder: Path, *overrides: str) -> tuple[str, ...]:
    parquet = ("data.format=parquet", f"data.path={folder}", "data.num_classes=2")
    return (str(preset_file(folder.parent)), *parquet, *overrides)


def request(*overrides: str, name: str, **execution: object) -> preflight.Request:
    placed = Execution.model_validate({"store": "memory://preflight", **execution})
    return preflight.Request(load_run(name, overrides), placed, Store(placed.store))


def found(asked: preflight.Request) -> list[str]:
    """Return the messages of all problems of a run."""
    with pytest.raises(DistillError) as error:
        preflight.check_request(asked)
    return list(error.value.args)


def test_a_config_with_five_faults_reports_five_in_one_numbered_list(
    distill: Distill, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    preset = preset_of(
        hub,
        "data.num_classes=3",
        f"squeeze.checkpoint={hub}/gone.pth",
        f"squeeze.pool=[{{model: {{name: convnet3}}, reuse: '{32 * '0'}'}}]",
    )
    place = ("--store", f"{tmp_path}/s", "--local", "--device", "cuda")
    outputs = [
        distill("run", *preset, *place),
        distill("run", *preset, *place, "--dry-run"),
        distill("redistill", *preset, *place),
    ]
    assert {output.code for output in outputs} == {2}
    (text,) = {output.err for output in outputs}
    head, *lines = text.splitlines()
    assert head == "distill: 5 problems:"
    words = (
        "found 2 classes, but data.num_classes is 3",
        "all of 2 sampled labels are -1",
        "gone.pth: no such file",
        "no such teacher",
        "device = cuda: torch",
    )
    assert len(lines) == len(words)
    for number, (line, word) in enumerate(zip(lines, words, strict=True), 1):
        assert line.startswith(f"{number}. ")
        assert word in line
    assert not (tmp_path / "s").exists()
    planned = distill("plan", *preset)
    assert planned.code == 0
    assert planned.err.count("a run would be refused") == 4  # whatever the machine is


def test_one_problem_is_raised_as_it_is_and_several_survive_pickling() -> None:
    def refuse(text: str) -> Check:
        def check(_: preflight.Request) -> None:
            raise DataError(text)

        return check

    asked = request(name="digits-demo")
    with pytest.raises(DataError, match=r"^one$"):
        make((refuse("one"), refuse("one")), asked)  # equal lines count once
    with pytest.raises(Problems) as error:
        make((refuse("one\ntwo"), refuse("three")), asked)
    again = pickle.loads(pickle.dumps(error.value))
    assert str(again) == str(error.value) == "2 problems:\n1. one two\n2. three"
    secret = Problems("s3://AKUSER:wJalrXUtnFEMI@bucket/x: no", "b")
    assert "wJalrXUtnFEMI" not in str(secret)


def test_a_test_split_without_labels_is_refused_before_any_image_is_read(
    distill: Distill, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> Iterator[object]:
        raise AssertionError("an image was read")

    monkeypatch.setattr(ParquetReader, "records", read)
    output = distill("run", *preset_of(hub), "--store", f"{tmp_path}/s", "--local")
    assert output.code == 2
    assert output.err == (
        f"distill: {hub}: test split 'test': all of 2 sampled labels are -1, as in the test splits "
        "of the Hugging Face hub whose labels are not published. Set data.test to a split with "
        "labels, which is often `validation`.\n"
    )
    assert not (tmp_path / "s").exists()
    preset, *overrides = preset_of(hub, "data.test=validation")
    run = planned_run(load_run(preset, overrides), Store(f"{tmp_path}/s"))
    preflight.check(run, Execution(store=run.store.url))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ((0, 5), "label 5 is not one of the 2 classes, 0 to 1 (1 of 2 sampled labels)"),
        ((-1, 1), "label -1 is not one of the 2 classes"),
        ((None, None), "none of 2 sampled images has a label"),
    ],
)
def test_labels_of_no_class_are_refused(
    hub: Path, labels: tuple[int | None, ...], words: str
) -> None:
    rows = [(png(9), label) for label in labels]
    write_parquet(hub / "train-00000-of-00001.parquet", rows, names=("cat", "dog"))
    preset, *overrides = preset_of(hub, "data.test=validation")
    (message,) = found(request(*overrides, name=preset))
    assert words in message


def test_a_sample_of_labels_comes_from_several_files_of_a_split(tmp_path: Path) -> None:
    for part in range(9):
        path = tmp_path / f"train-{part:05d}-of-00009.parquet"
        write_parquet(path, [(png(part), part)], names=list(map(str, range(9))))
    reader = ParquetReader(data_config(tmp_path, format="parquet", num_classes=9))
    assert reader.sample_labels("train") == [0, 3, 6]


def test_a_test_split_whose_names_stand_in_another_order_is_converted_by_name(
    tmp_path: Path,
) -> None:
    """As on the hub, where a file may list its ClassLabel names in another order."""
    cats, dogs = (png(0), png(1)), (png(20), png(21))
    write_parquet(
        tmp_path / "d/train.parquet",
        [*((image, 0) for image in cats), *((image, 1) for image in dogs)],
        names=("cat", "dog"),
    )
    write_parquet(tmp_path / "d/test.parquet", [(png(2), 1), (png(22), 0)], names=("dog", "cat"))
    preset, *overrides = preset_of(tmp_path / "d")
    preflight.check_request(request(*overrides, name=preset))
    tiny = tiny_run(tmp_path / "store", *overrides)
    execute(tiny, "ingest")
    test = load_index(tiny.store, dataset_of(tiny)).test
    wnids = dict(zip(test["sha256"].to_pylist(), test["wnid"].to_pylist(), strict=True))
    assert wnids == {sha256(png(2)): "cat", sha256(png(22)): "dog"}


def test_a_dataset_of_other_classes_than_its_label_space_is_refused(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "data")
    for split in ("train", "test"):
        for name in CIFAR10[2:]:
            (folder / split / name).mkdir(exist_ok=True)
        (folder / split / "frog").rename(folder / split / "toad")
    overrides = (f"data.path={folder}", "data.num_classes=10", "data.label_space=cifar10")
    (message,) = found(request(*overrides, name=str(preset_file(tmp_path))))
    assert "not the 10 classes of cifar10: 3 ('airplane', 'automobile', 'frog')" in message
    shutil.rmtree(folder)
    for split in ("train", "test"):
        for name in CIFAR10:
            (folder / split / name).mkdir(parents=True)
    preflight.check_request(request(*overrides, name=str(preset_file(tmp_path))))


def test_images_that_fit_no_node_are_refused_and_tight_ones_are_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.terminal.warn.cache_clear()
    asked = request("ipc=5000", name="digits-demo")
    others = {"ingest", "squeeze", "recover", "relabel", "validate"}
    asked = replace(asked, complete=frozenset(others))
    images = machine.distilled_bytes(asked.config)
    assert images == 10 * 5_000 * 3 * 32 * 32
    (posttrain,) = [m for m in stage_memories(asked.config) if m.stage == "posttrain"]

    def nodes(host: float, workers: int = 1) -> None:
        monkeypatch.setattr(device, "node_memory", lambda _: NodeMemory(int(host), workers))

    nodes(images - 1)
    (message,) = [line for line in found(asked) if line.startswith("posttrain")]
    assert message.startswith("posttrain: a process needs about 1")
    assert "50,000 distilled images 154 MB" in message
    nodes(posttrain.needed + 1)
    machine.check_memory(asked)
    assert capsys.readouterr().err == ""
    nodes(posttrain.of_node(2) - 1, workers=2)  # they share the images
    machine.check_memory(asked)
    assert "posttrain: a process needs about" in capsys.readouterr().err


def test_the_memory_of_a_process_is_compared_with_its_node_stage_by_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An estimate is a warning; half of what must be held at once is a reason to refuse."""
    machine.terminal.warn.cache_clear()
    asked = replace(
        request(name="sre2l-tiny"), complete=frozenset({"ingest", "posttrain", "squeeze"})
    )
    memories = {memory.stage: memory for memory in stage_memories(asked.config)}
    recover, relabel = memories["recover"], memories["relabel"]

    def nodes(host: float, workers: int = 1, *, fixed: bool = True) -> None:
        memory = NodeMemory(int(host), workers, fixed=fixed)
        monkeypatch.setattr(device, "node_memory", lambda _: memory)

    nodes(2 * recover.needed + 1, workers=2)
    machine.check_memory(asked)
    assert capsys.readouterr().err == ""
    nodes(2 * recover.needed - 1, workers=2)
    machine.check_memory(asked)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"recover: a process needs about {recover.needed / GB:.3g} GB" in line
    assert "the activations of 100 images" in line
    assert "for 2 workers. Use fewer workers" in line
    nodes(relabel.least - 1, fixed=False)  # larger nodes may come
    machine.check_memory(asked)
    assert len(capsys.readouterr().err.splitlines()) == 2
    nodes(recover.least - 1)
    with pytest.raises(ConfigError, match="recover: a process needs"):
        machine.check_memory(asked)
    nodes(relabel.least - 1)
    with pytest.raises(Problems) as both:
        machine.check_memory(asked)
    assert [str(error).split(":")[0] for error in both.value.args] == ["recover", "relabel"]
    done = frozenset({"squeeze", "recover", "relabel", "posttrain"})
    machine.check_memory(replace(asked, complete=done))


def test_a_gpu_holds_what_a_stage_needs_without_the_imports_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.terminal.warn.cache_clear()
    on_gpu = request(name="sre2l-in1k", device="cuda", local=True)
    asked = replace(on_gpu, complete=frozenset({"posttrain", "relabel", "squeeze"}))
    memories = {m.stage: m for m in stage_memories(asked.config, Launch("cuda"))}
    recover = memories["recover"].on("device")
    assert memories["recover"].needed - recover.needed == BASE
    monkeypatch.setattr(device, "gpu_memory", lambda _: int(recover.needed + 1))
    machine.check_memory(asked)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(device, "gpu_memory", lambda _: int(recover.needed - 1))
    machine.check_memory(asked)
    assert "but the GPU has" in capsys.readouterr().err
    monkeypatch.setattr(device, "gpu_memory", lambda _: int(recover.least - 1))
    with pytest.raises(ConfigError, match=r"recover: .* but the GPU has"):
        machine.check_memory(asked)
    monkeypatch.setattr(device, "gpu_memory", lambda _: None)  # on other machines
    machine.check_memory(asked)


@pytest.mark.parametrize("crop_from", ["square", "image"])
def test_training_images_that_fit_the_host_but_not_the_gpu_are_no_reason_to_refuse(
    monkeypatch: pytest.MonkeyPatch, crop_from: str
) -> None:
    """Training reads them in every epoch then: see `distill_core.training.streaming.fits`."""
    space = "data.label_space=imagenet-1k"
    crops = f"squeeze.training.crop_from={crop_from}"
    asked = request(space, crops, name="cda-in1k", device="cuda", local=True)
    asked = replace(asked, complete=frozenset({"recover", "relabel", "posttrain", "validate"}))
    monkeypatch.setattr(device, "node_memory", lambda _: NodeMemory(1_000 * GB, 1))
    monkeypatch.setattr(device, "gpu_memory", lambda _: 80 * GB)
    machine.check_memory(asked)


@pytest.mark.parametrize(
    ("settings", "gpus", "sharing"),
    [
        ({"local": True, "workers": 3}, 1, 3),
        ({"local": True, "workers": 3}, 2, 2),
        ({"local": True}, 2, 1),
        ({"num_gpus": 0.25}, 2, 4),
        ({"num_gpus": 0.25, "workers": 2}, 2, 2),
        ({"num_gpus": 1.0, "workers": 8}, 2, 1),
    ],
)
def test_the_workers_that_share_a_gpu_share_its_memory(
    settings: dict[str, object],
    gpus: int,
    sharing: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine.terminal.warn.cache_clear()
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    on_gpu = request(name="sre2l-in1k", device="cuda", **settings)
    assert device.gpu_workers(on_gpu.execution) == sharing
    asked = replace(on_gpu, complete=frozenset({"posttrain", "relabel", "squeeze"}))
    memories = {m.stage: m for m in stage_memories(asked.config, Launch("cuda"))}
    needed = sharing * memories["recover"].on("device").needed
    monkeypatch.setattr(device, "gpu_memory", lambda _: int(needed + 1))
    machine.check_memory(asked)
    assert "the GPU has" not in capsys.readouterr().err
    monkeypatch.setattr(device, "gpu_memory", lambda _: int(needed - 1))
    machine.check_memory(asked)
    assert "the GPU has" in capsys.readouterr().err


def test_the_published_test_split_of_a_label_space_is_compared_with_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a split of any size, no more than what is held at once."""
    asked = request("data.label_space=imagenet-21k-p", name="cda-in21kp")
    assert asked.real_images == (11_060_223, 522_500, None)
    monkeypatch.setattr(device, "node_memory", lambda _: NodeMemory(GB // 4, 1))
    problems = found(replace(asked, complete=frozenset({"recover", "relabel", "posttrain"})))
    assert any("1,783 test images 268 MB" in problem for problem in problems)


def test_the_images_of_a_dataset_are_counted_once_it_is_ingested(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    execute(run, "ingest")
    asked = preflight.Request(
        run.config, Execution(store=run.store.url), run.store, dataset=dataset_of(run)
    )
    index = load_index(run.store, dataset_of(run))
    assert asked.real_images == (
        index.count_readable("train"),
        index.count_readable("test"),
        max(index.class_sizes("train").values()),
    )
    bare = preflight.Request(run.config, Execution(store=run.store.url), run.store)
    assert bare.real_images == (None, None, None)


def test_the_nodes_of_a_cluster_are_asked_only_after_it_was_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    placed = Execution(store="/tmp/x", ray_address="head:6379")
    monkeypatch.setitem(device.sys.modules, "ray", None)
    assert device.node_memory(placed) is None
    node = {"memory": 3.0 * GB, "object_store_memory": 1.0 * GB}
    nodes = [
        {"Alive": True, "Resources": node},
        {"Alive": False, "Resources": {"memory": 9.0 * GB}},
    ]
    fake = SimpleNamespace(is_initialized=lambda: True, nodes=lambda: nodes)
    monkeypatch.setitem(device.sys.modules, "ray", fake)
    assert device.node_memory(placed) == NodeMemory(4 * GB, 1, fixed=False)
    here = device.node_memory(Execution(store="/tmp/x", local=True, workers=3))
    assert here is not None
    assert (here.workers, here.fixed) == (3, True)


def test_the_nodes_of_a_joined_cluster_are_a_warning_since_larger_ones_may_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.terminal.warn.cache_clear()
    run = planned_run(load_run("digits-demo", ["ipc=200"]), Store(f"{tmp_path}/s"))
    joined = Execution(store=run.store.url, ray_address="head:6379")
    monkeypatch.setattr(device, "node_memory", lambda _: NodeMemory(GB // 1000, 1, fixed=False))
    request = Request(run.config, joined, run.store)
    machine.check_joined_cluster(request)
    assert "posttrain: a process needs about" in capsys.readouterr().err
    machine.terminal.warn.cache_clear()
    here = Execution(store=run.store.url, local=True)
    machine.check_joined_cluster(Request(run.config, here, run.store))
    monkeypatch.setattr(device, "node_memory", lambda _: None)
    machine.check_joined_cluster(request)
    assert capsys.readouterr().err == ""


def test_a_disk_that_is_too_small_is_refused_and_a_full_one_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.terminal.warn.cache_clear()
    asked = request(name="digits-demo", store=f"{tmp_path}/not/yet/there")

    def disk(total: int, free: int) -> None:
        usage = SimpleNamespace(total=total, free=free)
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)

    disk(100 * GB, 100 * GB)
    machine.check_disk(asked)
    assert capsys.readouterr().err == ""
    disk(100 * GB, 1000)
    machine.check_disk(asked)
    assert "images and labels of the run need about" in capsys.readouterr().err
    disk(1000, 1000)
    with pytest.raises(ConfigError, match=r"recover .* relabel .* squeeze and .* Use another"):
        machine.check_disk(asked)
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "model_ema"])
def test_the_head_of_a_torch_checkpoint_is_compared(hub: Path, wrap: str | None) -> None:
    state = build_model(ModelConfig(name="resnet18_small", width=4), 3, seed=0).state_dict()
    path = hub / "three.pth"
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save(state if wrap is None else {wrap: wrapped, "epoch": 3}, path)
    preset, *overrides = preset_of(hub, "data.test=validation", f"squeeze.checkpoint={path}")
    (message,) = found(request(*overrides, name=preset))
    assert "the head 'fc.weight' has 3 classes, the dataset has 2" in message
    named = "squeeze.imported={label_space: cifar10}"
    (message,) = found(request(*overrides, named, name=preset))
    assert "the head 'fc.weight' has 3 classes, the dataset has 10" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "a Git LFS pointer",
        ),
        (b"<!DOCTYPE html>\n<html><body>Not found</body></html>", "an HTML page"),
        (b"PK\x03\x04" + 60 * b"x", "not a complete torch checkpoint"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named_as_what_it_is(
    hub: Path, content: bytes, words: str
) -> None:
    path = hub / "teacher.pth"
    path.write_bytes(content)
    preset, *overrides = preset_of(hub, "data.test=validation", f"squeeze.checkpoint={path}")
    (message,) = found(request(*overrides, name=preset))
    assert words in message


def test_a_checkpoint_that_the_import_refuses_is_refused_without_executing_it(
    hub: Path, tmp_path: Path
) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "executed",))

    state = build_model(ModelConfig(name="resnet18_small", width=4), 2, seed=0).state_dict()
    path = hub / "hostile.pth"
    torch.save({"args": Hostile(), "model": state}, path)
    preset, *overrides = preset_of(hub, "data.test=validation", f"squeeze.checkpoint={path}")
    (message,) = found(request(*overrides, name=preset))
    with pytest.raises(DataError) as refusal:
        read_weights(str(path))
    assert message == str(refusal.value)
    assert "plain weights (Trying to call reduce for unrecognized function" in message
    assert not (tmp_path / "executed").exists()


def test_a_dataset_that_is_divided_by_a_rule_needs_no_test_split(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "data")
    shutil.rmtree(folder / "test")
    overrides = (f"data.path={folder}", "data.num_classes=2")
    name = str(preset_file(tmp_path))
    (message,) = found(request(*overrides, name=name))
    assert "expected the test split" in message
    preflight.check_request(request(*overrides, "data.split=first:1", name=name))
    # Which classes ImageNet-21K-P's rule leaves is known once they are counted.
    more = (f"data.path={folder}", "data.num_classes=1", "data.split=imagenet21k_p")
    preflight.check_request(request(*more, name=name))
    ten = (f"data.path={folder}", "data.num_classes=10", "data.label_space=cifar10")
    (message,) = found(request(*ten, "data.split=imagenet21k_p", name=name))
    assert "8 ('airplane', 'automobile', 'bird', ...) of the 10 classes of cifar10 are" in message
    for other in (*CIFAR10, "toad"):  # a class that the rule may leave out
        (folder / "train" / other).mkdir(exist_ok=True)
    preflight.check_request(request(*ten, "data.split=imagenet21k_p", name=name))
    shutil.rmtree(folder / "train")
    for rule in ("first:1", "imagenet21k_p"):
        (message,) = found(request(*overrides, f"data.split={rule}", name=name))
        assert "expected the train split" in message
