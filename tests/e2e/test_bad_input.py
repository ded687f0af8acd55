"""Bad input: one clear line, exit code 2, and no partial file."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.pipeline import TINY, execute, tiny_run


def distill(*arguments: str, code: int = 2) -> str:
    """Run the command line in a new process and return its stderr."""
    command = [sys.executable, "-m", "flows.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stderr


def refused(*arguments: str) -> str:
    """Return the one line that a refused command prints."""
    lines = [line for line in distill(*arguments).splitlines() if line.startswith("distill:")]
    assert len(lines) == 1, lines
    return lines[0]


def tiny(store: Path, *overrides: str) -> tuple[str, ...]:
    """Return the arguments of a tiny local run."""
    return ("run", "digits-demo", *TINY, *overrides, "--store", str(store), "--local")


def files(store: Path) -> list[str]:
    """Return every file below a store."""
    return sorted(str(p.relative_to(store)) for p in store.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sre2l-cifar11",), ("sre2l-cifar11", "no such preset", "sre2l-cifar10")),
        (("digits-demo", "recover.lrr=1"), ("recover.lrr", "no such key", "'lr'")),
        (("digits-demo", "recoverr.lr=1"), ("recoverr", "no such key", "'recover'")),
        (("digits-demo", "ipc=0"), ("ipc = 0", "greater than 0")),
        (("digits-demo", "recover.terms={tvv: 1}"), ("tvv", "bn_statistics", "cross_entropy")),
    ],
)
def test_a_wrong_description_is_refused_before_anything_is_written(
    tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    line = refused("run", *arguments, "--store", str(tmp_path / "store"), "--local")
    assert all(word in line for word in words), line
    assert not (tmp_path / "store").exists()


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    line = refused(*tiny(tmp_path / "file" / "store"))
    assert "file/store" in line
    assert "written" in line


def png(value: int) -> bytes:
    """Return a small grey image."""
    stream = io.BytesIO()
    Image.fromarray(np.full((40, 40, 3), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an image folder of two classes and both splits."""
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(3):
                path = tmp_path / "data" / split / name / f"{number}.png"
                path.write_bytes(png(40 * number + len(name)))
    return tmp_path / "data"


def own_data(folder: Path) -> tuple[str, ...]:
    """Return the overrides that point the tiny run at the folder."""
    return ("data.format=imagefolder", f"data.path={folder}", "data.num_classes=2")


def test_a_class_without_images_is_named(folder: Path, tmp_path: Path) -> None:
    for image in (folder / "train" / "dog").iterdir():
        image.unlink()
    line = refused(*tiny(tmp_path / "store", *own_data(folder)))
    assert "dog" in line
    assert not list((tmp_path / "store").glob("datasets/*/index.json"))


def test_an_unreadable_image_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "train" / "cat" / "1.png").write_bytes(png(7)[:60])
    line = refused(*tiny(tmp_path / "store", *own_data(folder)))
    assert "cat/1.png" in line
    assert not list((tmp_path / "store").glob("datasets/*/index.json"))


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the weights of a ten-class digits teacher; its description is in the same folder."""
    folder = tmp_path_factory.mktemp("teacher")
    run = tiny_run(folder / "store")
    execute(run, "ingest", "squeeze")
    for path in (folder / "store" / "squeeze" / "data").iterdir():
        path.rename(folder / f"teacher{path.suffix}")
    return folder / "teacher.safetensors"


def test_a_teacher_with_another_class_count_is_refused(
    folder: Path, tmp_path: Path, teacher_file: Path
) -> None:
    (teacher_file.parent / "alone").mkdir(exist_ok=True)
    alone = teacher_file.parent / "alone" / "weights.safetensors"
    alone.write_bytes(teacher_file.read_bytes())
    arguments = tiny(tmp_path / "store", *own_data(folder), f"squeeze.checkpoint={alone}")
    line = refused(*arguments)
    assert "10" in line
    assert "2" in line
    assert not (tmp_path / "store" / "squeeze" / "_done").exists()


def test_a_teacher_with_another_class_list_is_refused(tmp_path: Path, teacher_file: Path) -> None:
    other = tmp_path / "data"
    for split in ("train", "test"):
        for number in range(10):
            (other / split / f"other{number}").mkdir(parents=True)
            (other / split / f"other{number}" / "0.png").write_bytes(png(20 * number))
    line = refused(
        *tiny(
            tmp_path / "store",
            "data.format=imagefolder",
            f"data.path={other}",
            f"squeeze.checkpoint={teacher_file}",
        )
    )
    assert "class list" in line or "class-list" in line
    assert not (tmp_path / "store" / "squeeze" / "_done").exists()


@pytest.mark.cluster
def test_more_gpus_than_the_cluster_has_is_refused_with_both_numbers(tmp_path: Path) -> None:
    arguments = [a for a in tiny(tmp_path / "store") if a != "--local"]
    line = refused(*arguments, "--num-gpus", "3")
    assert "GPU" in line
    assert "3" in line
    assert "0" in line
