"""Cheap checks come before everything else, and a dry run makes the same ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distill_core.config.load import load_run
from distill_core.config.training import ModelConfig
from distill_core.errors import ConfigError, DataError
from distill_core.models.build import build_model
from distill_core.models.files import save_weights
from distill_core.storage.store import Store
from flows.runs import preflight
from tasks.execution import Execution
from tasks.pools.device import check_device, count_local
from tasks.run import planned_run
from tests.support.cli import Distill
from tests.support.datasets import image_folder, png, write_parquet
from tests.support.fabricate import finished_run, preset_file
from tests.support.pipeline import execute, tiny_run

KEY = 32 * "0"
# What is wrong -> the overrides, and words of the line that refuses them.
WRONG = {
    "no path": (["data.path=null"], "data.path: missing, but format imagefolder needs it"),
    "another path": (["data.path=DATA/nowhere"], "nowhere: no such folder"),
    "a file as path": (["data.path=DATA/train/cat/0.png"], "0.png: no such folder"),
    "an unknown protocol": (["data.path=quux://x/y"], "quux://x/y: cannot be opened"),
    "another class count": (["data.num_classes=3"], "found 2 classes, but data.num_classes is 3"),
    "no train split": (["data.train=nowhere"], "nowhere: no such folder, expected the train split"),
    "no test split": (["data.test=nowhere"], "nowhere: no such folder, expected the test split"),
    "a class in one split": (["data.train=part", "data.num_classes=1"], "a class that"),
    "no Parquet": (["data.format=parquet"], "no Parquet file for the split 'train'"),
    "no Parquet of one split": (
        ["data.format=parquet", "data.train=table"],
        "no Parquet file for the split 'test'",
    ),
    "a broken Parquet": (
        ["data.format=parquet", "data.train=broken"],
        "broken.parquet: not a complete Parquet file",
    ),
    "no checkpoint": (["squeeze.checkpoint=DATA/nowhere.pth"], "nowhere.pth: no such file"),
    "a folder as checkpoint": (["squeeze.checkpoint=DATA"], "data: no such file"),
    "a checkpoint nowhere": (["squeeze.checkpoint=quux://x"], "quux://x: cannot be opened"),
    "no weights as checkpoint": (
        ["squeeze.checkpoint=DATA/broken.parquet"],
        "broken.parquet: not a torch checkpoint (36 bytes)",
    ),
    "a checkpoint of other classes": (
        ["squeeze.checkpoint=DATA/three.safetensors"],
        "the head 'fc.weight' has 3 classes, the dataset has 2",
    ),
    "an unknown teacher": ([f"squeeze.reuse='{KEY}'"], "no such teacher"),
    "another member of the pool": (
        ["squeeze.pool=[{model: {name: convnet3}, checkpoint: DATA/nowhere.pth}]"],
        "nowhere.pth: no such file",
    ),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder with an image dataset, and beside it parts of others."""
    folder = image_folder(tmp_path / "data")
    shutil.copytree(folder / "train" / "cat", folder / "part" / "cat")
    write_parquet(folder / "table.parquet", [(png(0), 0), (png(1), 1)])
    (folder / "broken.parquet").write_bytes(b"PAR1" * 9)
    three = build_model(ModelConfig(name="resnet18_small", width=4), 3, seed=0)
    (folder / "three.safetensors").write_bytes(save_weights(three))
    return folder


def of(data: Path, overrides: list[str]) -> tuple[str, ...]:
    """Return a preset of the dataset with some overrides."""
    given = [override.replace("DATA", str(data)) for override in overrides]
    return (str(preset_file(data)), f"data.path={data}", "data.num_classes=2", *given)


@pytest.mark.parametrize(("overrides", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_dataset_or_teacher_is_refused_before_anything_is_written(
    distill: Distill, data: Path, tmp_path: Path, overrides: list[str], words: str
) -> None:
    store, preset = tmp_path / "store", of(data, overrides)
    place = ("--store", str(store), "--local")
    lines = set()
    for command in (("run", *preset), ("run", *preset, "--dry-run"), ("redistill", *preset)):
        output = distill(*command, *place)
        assert (output.code, output.out) == (2, "")
        lines.add(output.err)
        assert not store.exists()
    (text,) = lines
    assert words in text
    # The other split of these has no file, either.
    several = "format=parquet" in overrides[0] and overrides[1:] != ["data.train=table"]
    assert len(text.splitlines()) == (3 if several else 1)


@pytest.mark.parametrize(("overrides", "words"), WRONG.values(), ids=WRONG)
def test_plan_warns_that_a_run_would_be_refused(
    distill: Distill, data: Path, overrides: list[str], words: str
) -> None:
    output = distill("plan", *of(data, overrides))
    assert output.code == 0
    if overrides == ["data.path=null"]:  # as in every shipped preset
        assert output.err == ""
    else:
        assert "distill: warning: a run would be refused: " in output.err
        assert words in output.err


def test_cuda_without_a_gpu_is_refused_before_anything_is_written(
    distill: Distill, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for words in ((), ("--dry-run",), ("--local",), ("--local", "--dry-run")):
        output = distill(
            "run", *of(data, []), "--device", "cuda", "--store", f"{tmp_path}/s", *words
        )
        assert output.code == 2
        assert "device = cuda: torch" in output.err
        assert len(output.err.splitlines()) == 1
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"device": "cpu"}, False),
        ({"device": "cuda"}, True),
        ({"device": "cuda", "local": True}, True),
        ({"device": "cuda", "local": True, "ray_address": "head:6379"}, True),
        # The driver of a cluster needs no GPU: its workers have them.
        ({"device": "cuda", "ray_address": "head:6379"}, False),
    ],
)
def test_only_a_machine_that_computes_needs_the_device(
    settings: dict[str, object], refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    execution = Execution.model_validate({"store": "/tmp/x", **settings})
    if refused:
        with pytest.raises(ConfigError, match="finds no GPU"):
            check_device(execution)
    else:
        check_device(execution)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    check_device(execution)


CPUS = os.cpu_count() or 1


@pytest.mark.parametrize(
    ("settings", "gpus", "words"),
    [
        ({"num_gpus": 1}, 0, "num_gpus = 1: torch finds 0 GPUs"),
        ({"num_gpus": 0.25}, 0, "num_gpus = 0.25: torch finds 0 GPUs"),
        ({"num_gpus": 3}, 2, "num_gpus = 3: torch finds 2 GPUs"),
        ({"num_gpus": 3, "device": "cuda"}, 2, "num_gpus = 3: torch finds 2 GPUs"),
        ({"num_cpus": CPUS + 1}, 0, f"num_cpus = {CPUS + 1}: this machine has {CPUS} CPUs"),
        ({"num_gpus": 2}, 2, None),
        ({"num_gpus": 0}, 0, None),
        ({"num_cpus": CPUS, "workers": 3}, 0, None),
        # Without Ray nothing is reserved, and a cluster is not this machine.
        ({"num_gpus": 1, "num_cpus": CPUS + 1, "local": True}, 0, None),
        ({"num_gpus": 8, "num_cpus": CPUS + 1, "ray_address": "head:6379"}, 0, None),
    ],
)
def test_a_worker_that_this_machine_could_not_place_is_refused(
    settings: dict[str, object], gpus: int, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    execution = Execution.model_validate({"store": "/tmp/x", **settings})
    if words is None:
        check_device(execution)
        return
    with pytest.raises(ConfigError, match=f"^{words}") as refused:
        check_device(execution)
    assert "--ray-address" in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_gpus": 0.5, "ray_address": "head:6379"}, "num_gpus = 0.5 puts several"),
        ({"num_gpus": 0.25, "ray_address": "head:6379"}, "num_gpus = 0.25 puts several"),
        ({"local": True}, "this machine has 1 GPUs"),
        ({"num_gpus": 1, "ray_address": "head:6379"}, None),
        ({"num_gpus": 2, "ray_address": "head:6379"}, None),
        ({"num_gpus": 0.5, "ray_address": "head:6379", "device": "cpu"}, None),
    ],
)
def test_a_training_whose_processes_would_share_a_gpu_is_refused_before_anything_is_written(
    settings: dict[str, object],
    words: str | None,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    execution = Execution.model_validate(
        {"store": str(tmp_path / "s"), "device": "cuda", **settings}
    )
    source, *overrides = of(data, ["posttrain.processes=2"])
    run = planned_run(load_run(source, overrides), Store(execution.store))
    if words is None:
        preflight.check(run, execution)
        return
    with pytest.raises(ConfigError, match=f"^posttrain in 2 processes: {words}"):
        preflight.check(run, execution)
    assert not (tmp_path / "s").exists()


def test_a_teacher_of_several_processes_is_trained_by_as_many_as_there_are_gpus(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    execution = Execution(store=str(tmp_path / "s"), local=True, device="cuda")
    source, *overrides = of(data, ["squeeze.training.processes=4"])
    preflight.check(planned_run(load_run(source, overrides), Store(execution.store)), execution)
    counts = [count_local(execution, many, least=1) for many in (1, 2, 4)]
    assert counts == [1, 2, 2]
    assert count_local(execution, 4, least=4) == 4
    assert count_local(execution.on_cpu(), 4, least=1) == 4


@pytest.mark.parametrize("option", ["--num-gpus", "--num-cpus"])
def test_resources_that_this_machine_lacks_are_refused_before_anything_is_written(
    distill: Distill, data: Path, tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    for words in ((), ("--dry-run",)):
        place = ("--store", f"{tmp_path}/s", option, str(CPUS + 1))
        output = distill("run", *of(data, []), *place, *words)
        assert output.code == 2
        assert f"{option[2:].replace('-', '_')} = {CPUS + 1}: " in output.err
        assert len(output.err.splitlines()) == 1
    assert not (tmp_path / "s").exists()


def test_every_command_makes_the_same_checks(
    distill: Distill, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def first(request: preflight.Request) -> None:
        made.append(request.config.preset)

    def second(request: preflight.Request) -> None:
        raise ConfigError("stopped")

    registered = tiny_run(tmp_path / "store")
    before = files(tmp_path)
    monkeypatch.setattr(preflight, "CHECKS", (first, second))
    preset, place = str(preset_file(data)), ("--store", f"{tmp_path}/store", "--local")
    for command in (
        ("run", preset),
        ("run", preset, "--dry-run"),
        ("resume", registered.name),
        ("resume", registered.name, "--dry-run"),
        ("redistill", preset),
    ):
        output = distill(*command, *place)
        assert (output.code, output.err) == (2, "distill: stopped\n")
    assert made == ["tiny", "tiny", "digits-demo", "digits-demo", "tiny"]
    assert files(tmp_path) - before == {"data/tiny.yaml"}


def test_a_complete_run_needs_neither_its_dataset_nor_its_device(
    distill: Distill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(request: preflight.Request) -> None:
        raise ConfigError("stopped")

    run = finished_run(tmp_path)
    run.store.put(run.path("report/index.html"), b"placeholder")
    monkeypatch.setattr(preflight, "CHECKS", (refuse,))
    words = ("--store", run.store.url, "--device", "cuda")
    assert distill("resume", "tiny", *words).code == 0
    assert distill("run", f"{tmp_path}/tiny.yaml", "--name", "tiny", *words).code == 0


def test_a_run_whose_dataset_is_ingested_is_resumed_without_it(data: Path, tmp_path: Path) -> None:
    overrides = ("data.format=imagefolder", f"data.path={data}", "data.num_classes=2")
    run = tiny_run(tmp_path / "store", *overrides)
    execution = Execution(store=run.store.url)
    execute(run, "ingest")
    shutil.rmtree(data)
    preflight.check(run, execution)
    run.store.delete(run.path("ingest.json"))
    with pytest.raises(DataError, match="no such folder"):
        preflight.check(run, execution)


def test_a_dry_run_refuses_the_name_of_another_run(
    distill: Distill, data: Path, tmp_path: Path
) -> None:
    run = tiny_run(tmp_path / "store")
    words = ("--name", run.name, "--store", run.store.url, "--dry-run")
    output = distill("run", *of(data, []), *words)
    assert (output.code, "another config" in output.err) == (2, True)


def test_a_dry_run_writes_nothing_anywhere(data: Path, tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "store")
    places = {name: str(tmp_path) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    preset = of(data, [])
    before = files(tmp_path)
    for command in (("run", *preset), ("resume", run.name)):
        done = subprocess.run(
            [sys.executable, "-B", "-m", "flows.cli", *command, "--store", "store", "--dry-run"],
            cwd=tmp_path,
            env=os.environ | places | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert files(tmp_path) == before


def files(folder: Path) -> set[str]:
    """Return everything below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
