"""The images of the benchmark of ingestion, and their copies on disk and in a bucket."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.bench_posttrain import jpeg, smooth_images
from distill_core.config.load import load_run
from distill_core.config.schema import RunConfig
from distill_core.storage.filesystems import open_filesystem

CLASSES = 50
DIFFERENT = 100  # synthetic images; more of them repeat these
TESTS = 1  # images of each class to test on
SHARD_IMAGES = 1000  # of a tar file for the library webdataset

Files = Mapping[str, bytes]  # by path below a split: class/name


def real_data() -> Path:
    """Return the folder of real images, which may not exist."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("DISTILL_TEST_DATA", beside))


def small_files(count: int) -> tuple[str, Files]:
    """Return a title and images of 64 pixels, Tiny-ImageNet's where they are found."""
    path = real_data() / "tiny-imagenet-50" / "train.parquet"
    if not path.is_file():
        made = [jpeg(image) for image in smooth_images(DIFFERENT, 64)]
        return "synthetic JPEG, 64 px", _repeated(made, count)
    table = pq.read_table(path)
    step = max(1, table.num_rows // count)
    chosen = table.slice(0, count * step).take(
        list(range(0, min(table.num_rows, count * step), step))
    )
    images, labels = chosen["image"].to_pylist(), chosen["label"].to_pylist()
    files = {
        f"c{label:03d}/{image['path'].rpartition('/')[2]}": image["bytes"]
        for image, label in zip(images, labels, strict=True)
    }
    return "Tiny-ImageNet, 64 px", files


def large_files(count: int) -> tuple[str, Files]:
    """Return a title and full-size photographs, of ImageNet where they are found; they repeat."""
    path = real_data() / "imagenet-samples-100" / "samples.tar"
    if not path.is_file():
        made = [jpeg(image) for image in smooth_images(DIFFERENT, 448)]
        return "synthetic JPEG, 448 px", _repeated(made, count)
    with tarfile.open(path) as archive:
        members = [archive.extractfile(member) for member in archive if member.isreg()]
        found = [member.read() for member in members if member is not None]
    return "ImageNet photographs", _repeated(found, count)


def _repeated(images: Sequence[bytes], count: int) -> Files:
    repeated = itertools.islice(itertools.cycle(images), count)
    return {f"c{n % CLASSES:03d}/{n:06d}.jpg": data for n, data in enumerate(repeated)}


@dataclass(frozen=True)
class ImageSource:
    """Some images as a folder of classes."""

    title: str
    files: Files
    side: int
    folder: Path  # has `train` and `test`

    @property
    def count(self) -> int:
        """Return the number of images of both splits."""
        return len(self.files) + len(self.tests)

    @property
    def tests(self) -> Files:
        """Return the images to test on: the first ones of each class."""
        groups = itertools.groupby(sorted(self.files), key=lambda path: path.partition("/")[0])
        chosen = [path for _, paths in groups for path in itertools.islice(paths, TESTS)]
        return {path: self.files[path] for path in chosen}

    def paths(self) -> Iterator[tuple[str, bytes]]:
        """Yield path and content of every file of both splits."""
        for split, files in (("train", self.files), ("test", self.tests)):
            for path, data in files.items():
                yield f"{split}/{path}", data

    def write(self) -> None:
        """Write the folder, and the tar files of the library webdataset beside it."""
        for path, data in self.paths():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        everything = list(self.paths())
        for number, start in enumerate(range(0, len(everything), SHARD_IMAGES)):
            with tarfile.open(self.shard(number), "w") as archive:
                for n, (path, data) in enumerate(everything[start : start + SHARD_IMAGES], start):
                    label = path.split("/")[1].removeprefix("c").encode()
                    for ending, content in (("jpg", data), ("cls", label)):
                        member = tarfile.TarInfo(f"{n:08d}.{ending}")
                        member.size = len(content)
                        archive.addfile(member, io.BytesIO(content))

    def shard(self, number: int) -> Path:
        """Return the path of a tar file."""
        return self.folder.parent / f"{self.folder.name}-{number:06d}.tar"

    def shards(self) -> list[str]:
        """Return the paths of all tar files."""
        return [str(self.shard(n)) for n in range(-(-self.count // SHARD_IMAGES))]

    def upload(self, url: str) -> None:
        """Write the images to a bucket."""
        fs, root = open_filesystem(url)
        fs.pipe({f"{root}/{path}": data for path, data in self.paths()})

    def run(self, url: str) -> RunConfig:
        """Return the config of a run on the images at an address."""
        classes = len({path.partition("/")[0] for path in self.files})
        return load_run(
            "cda-cifar10-cpu",
            [
                "data.name=bench",
                "data.format=imagefolder",
                f"data.path={url}",
                f"data.num_classes={classes}",
                f"data.side={self.side}",
            ],
        )
