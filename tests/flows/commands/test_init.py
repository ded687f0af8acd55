"""`distill init`, and the commands that take a dataset in place of a preset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill_core.config.load import load_run
from distill_core.storage.store import Store
from flows.orchestration import launch
from flows.runs import pipeline
from flows.runs.argument import is_dataset
from tasks.run import open_run
from tests.support.cli import Distill
from tests.support.datasets import encoded, image_folder, picture
from tests.support.sources import write

SMALL = (
    "squeeze.model.width=4",
    "squeeze.training.epochs=1",
    "recover.steps=2",
    "posttrain.students=[{name: resnet18_small, width: 4}]",
    "posttrain.epochs=2",
    "posttrain.sets=[distilled]",
)


@pytest.fixture
def flowers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of two classes side by side, and work in an empty folder beside it."""
    for number, name in enumerate(("red rose", "tulipán")):
        for k in range(5):
            data = encoded(picture(10 * number + k, (30, 30)))
            write(tmp_path / "My flowers" / name / f"{k}.png", data)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "My flowers"


def test_a_config_is_written_stated_and_runs_unchanged(distill: Distill, flowers: Path) -> None:
    output = distill("init", str(flowers))
    lines = output.out.splitlines()
    assert (output.code, output.err) == (0, "")
    assert lines[0] == "ImageFolder, 2 classes, 10 images, 30 px median."
    assert lines[-3].startswith("Method: edc-crops-cifar10; 1 images per class (2 in all) at 32 px")
    assert lines[-1] == "Wrote my-flowers.yaml. Start it with `distill run my-flowers.yaml`."
    text = Path("my-flowers.yaml").read_text(encoding="utf-8")
    assert "# Classes: red rose, tulipán.\n" in text
    config = load_run("my-flowers.yaml")
    assert (config.preset, config.data.name, config.data.path) == (
        "my-flowers",
        "my-flowers",
        str(flowers),
    )
    dry = distill("run", "my-flowers.yaml", "--dry-run", "--local")
    assert dry.code == 0
    assert "recover: 2 by the plan" in dry.out


def test_the_file_and_the_folder_are_the_same_run(distill: Distill, flowers: Path) -> None:
    distill("init", str(flowers))
    names = []
    for argument in ("my-flowers.yaml", str(flowers), f"{flowers}/", "../My flowers"):
        output = distill("ingest", argument, "--local", "--store", "s")
        assert output.code == 0, output.err
        names.append(output.out.splitlines()[-1].partition(":")[0])
    assert len(set(names)) == 1
    assert Store("s").folders("runs") == (names[0],)


def test_a_file_that_exists_is_kept_unless_it_is_forced(distill: Distill, flowers: Path) -> None:
    Path("a.yaml").write_text("mine")
    output = distill("init", str(flowers), "-o", "a.yaml")
    assert (output.code, output.out) == (2, "")
    assert output.err == (
        "distill: a.yaml: exists. Use --force to overwrite it, or -o for another file.\n"
    )
    assert Path("a.yaml").read_text() == "mine"
    assert distill("init", str(flowers), "-o", "a.yaml", "--force").code == 0
    assert load_run("a.yaml").preset == "a"


def test_the_config_alone_goes_to_stdout(distill: Distill, flowers: Path) -> None:
    output = distill("init", str(flowers), "-o", "-", "ipc=2", "squeeze.model.width=8", "seed=3")
    assert not list(Path().iterdir())
    Path("printed.yaml").write_text(output.out, encoding="utf-8")
    config = load_run("printed.yaml")
    assert (config.ipc, config.seed, config.squeeze.model.width) == (2, 3, 8)
    assert "ipc: 2 # set by you" in output.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-o", "a.txt"), "a.txt: expected a name that ends in .yaml"),
        (("-o", "nowhere/a.yaml"), "no folder nowhere"),
        (("-o", "folder.yaml", "--force"), "folder.yaml: a folder, expected a file"),
        (("-o", "/proc/a.yaml"), "/proc/a.yaml: cannot be written"),
        (("recover.terms.flatness=0.1",), "recover.terms.flatness cannot be written"),
        (("ipc",), "override 'ipc', expected the form dotted.key=value"),
        (("ipc=0",), "ipc = 0"),
        (("data.side=9999",), "data.side = 9999"),
        (("data.split=half",), "expected fraction:F"),
        (("data.sid=9",), "data.sid: no such key. Did you mean 'side'?"),
        (("--device", "tpu"), "device = 'tpu'"),
    ],
    ids=str,
)
def test_what_cannot_be_written_is_refused_in_one_line(
    distill: Distill, flowers: Path, options: tuple[str, ...], words: str
) -> None:
    Path("folder.yaml").mkdir()
    output = distill("init", str(flowers), *options)
    (line,) = output.err.splitlines()
    assert (output.code, output.out, words in line) == (2, "", True), line
    assert [path.name for path in Path().iterdir()] == ["folder.yaml"]


def test_sizes_are_chosen_for_the_device(distill: Distill, flowers: Path) -> None:
    printed = distill("init", str(flowers), "-o", "-", "--device", "cuda").out
    assert "squeeze:\n  model: {name: resnet18_small} #" in printed


def test_a_folder_runs_in_memory_and_finished_work_is_skipped(
    distill: Distill, flowers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("run", str(flowers), *SMALL, "--local", "--store", "s")
    output = distill(*arguments)
    assert output.code == 0, output.err
    assert output.out.startswith("ImageFolder, 2 classes, 10 images, 30 px median.\n")
    assert "resnet18_small-w4" in output.out

    def started(*_: object) -> None:
        raise AssertionError("work was started")

    monkeypatch.setattr(launch, "run_with_prefect", started)
    monkeypatch.setattr(pipeline, "run_local", started)
    again = distill(*arguments)
    assert again.out == output.out
    (name,) = Store("s").folders("runs")
    assert open_run(Store("s"), name).config.posttrain.epochs == 2


def test_a_dry_run_of_a_folder_writes_nothing(distill: Distill, flowers: Path) -> None:
    output = distill("run", str(flowers), "ipc=2", "--dry-run", "--local", "--store", "s")
    assert output.code == 0
    assert "2 images per class (4 in all)" in output.out
    assert not Path("s").exists()


def test_a_folder_is_ingested_with_and_without_a_preset(distill: Distill, tmp_path: Path) -> None:
    data, store = image_folder(tmp_path / "data"), str(tmp_path / "s")
    alone = distill("ingest", str(data), "--local", "--store", store)
    assert alone.out.splitlines()[-1].endswith(", 2 classes, 6 + 2 images.")
    config = (f"data.path={data}", "data.format=auto", "data.num_classes=0")
    preset = distill("ingest", "cda-cifar10-cpu", *config, "--local", "--store", store)
    assert preset.out.splitlines()[-1].endswith(", 2 classes, 6 + 2 images.")


def test_the_cost_of_a_folder_is_planned(distill: Distill, flowers: Path) -> None:
    plan = json.loads(distill("plan", str(flowers), "--json").out)
    assert (plan["preset"], plan["classes"], plan["images"]) == ("my-flowers", 2, 2)


def test_the_config_of_a_folder_is_shown_as_it_would_run(distill: Distill, flowers: Path) -> None:
    distill("init", str(flowers))
    written = distill("show", "my-flowers.yaml")
    output = distill("show", str(flowers), "ipc=3")
    assert (output.code, output.err) == (0, "")
    assert distill("show", str(flowers)).out == written.out
    assert "\nipc: 3\n" in output.out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("trigger",), "the machine that runs it may not see the dataset"),
        (("redistill",), "the sizes that are chosen for a dataset change with its images"),
        (("schedule", "--cron=0 3 * * 0"), "the sizes that are chosen for a dataset change"),
    ],
)
def test_commands_that_need_a_config_name_the_one_that_writes_it(
    distill: Distill, flowers: Path, command: tuple[str, ...], words: str
) -> None:
    name, *options = command
    output = distill(name, str(flowers), *options)
    assert (output.code, output.out) == (2, "")
    (line,) = output.err.splitlines()
    assert f"distill {command[0]} takes a preset or a .yaml file, not a dataset, as {words}" in line
    assert f"Write a config with `distill init '{flowers}'`, then use its file." in line
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("command", ["run", "ingest", "plan"])
@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (
            "cda-cifar10-cpuu",
            "cda-cifar10-cpuu: no such preset, and no folder or file of this name. Did you mean "
            "'cda-cifar10-cpu'?",
        ),
        ("flower", "flower: no such preset, and no folder or file of this name."),
        ("./flower", "no such file or folder, expected a folder, a .tar or .parquet file"),
        ("flower.yaml", "flower.yaml: no such file. Check the path."),
        ("s3://", "no bucket; expected s3://bucket/prefix"),
        ("s3://key:hush@bucket/x", "credentials"),
        (".", "found no images; expected a folder of images for each class"),
    ],
)
def test_what_is_neither_preset_nor_file_nor_dataset_is_one_line(
    distill: Distill, flowers: Path, command: str, argument: str, words: str
) -> None:
    output = distill(command, argument)
    (line,) = output.err.splitlines()
    assert (output.code, output.out, words in line) == (2, "", True), line
    assert "hush" not in line
    assert not list(Path().iterdir())


def test_a_preset_stays_a_preset_where_a_folder_has_its_name(flowers: Path) -> None:
    Path("digits-demo").mkdir()
    assert not is_dataset("digits-demo")
    assert is_dataset("./digits-demo")
    assert is_dataset(str(flowers))
    assert not is_dataset("any.yaml")


def test_a_store_between_the_folders_of_classes_is_refused(
    distill: Distill, flowers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(flowers)
    output = distill("run", ".", "--local")
    assert output.code == 2
    assert (
        "out: the store lies in the dataset's folder, where every folder is a class" in output.err
    )
    assert sorted(path.name for path in flowers.iterdir()) == ["red rose", "tulipán"]
    assert distill("run", ".", "--local", "--dry-run", "--store", "../s").code == 0


def test_a_folder_that_can_only_be_read_is_a_dataset(distill: Distill, flowers: Path) -> None:
    for path in (*flowers.iterdir(), flowers):
        path.chmod(0o555)
    try:
        assert distill("ingest", str(flowers), "--local", "--store", "s").code == 0
    finally:
        for path in (flowers, *flowers.iterdir()):
            path.chmod(0o755)
