"""The images of the benchmark of training data: files, packs, and the packed images as files."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.ingest_sources import real_data, small_files
from benchmarks.methods_cell import Silent
from distill_core.config.load import load_run
from distill_core.config.schema import RunConfig
from distill_core.data.packing.encode import packed_image
from distill_core.storage.store import Store
from tasks.execution import Execution
from tasks.pools.provider import PoolProvider
from tasks.run import Run, create_run
from tasks.runs.run_stage import run_stage
from tasks.stages.names import StageId

CLASSES = 50
DIFFERENT = 100  # stand-ins; more of them repeat these
SIZE = (500, 375)  # of a stand-in: width, height
EDGE = 256  # short side of a packed photograph


@dataclass(frozen=True)
class Photographs:
    """Some images as a folder of classes, and how they are trained on."""

    title: str
    files: Mapping[str, bytes]  # by path: class/name
    side: int
    edge: int  # short side of what is packed
    folder: Path

    @classmethod
    def stand_ins(cls, count: int, folder: Path) -> Photographs:
        """Return images of the size, in pixels and in bytes, of ImageNet's."""
        rng = np.random.default_rng(0)
        made = [_stand_in(rng) for _ in range(min(DIFFERENT, count))]
        repeated = itertools.islice(itertools.cycle(made), count)
        files = {f"c{n % CLASSES:03d}/{n:06d}.jpg": data for n, data in enumerate(repeated)}
        return cls(f"stand-ins of {SIZE[0]} x {SIZE[1]}", files, 224, EDGE, folder)

    def write(self) -> None:
        """Write the folder; the first image of each class is the test split."""
        write_folder(self.folder, self.files)

    def run(self, *settings: str) -> RunConfig:
        """Return the config of a run on the folder."""
        return load_run(
            "cda-cifar10-cpu",
            [
                "data.name=bench",
                "data.format=imagefolder",
                f"data.path={self.folder}",
                f"data.num_classes={len({path.partition('/')[0] for path in self.files})}",
                f"data.side={self.side}",
                "squeeze.training.augment={crop: [0.08, 1.0], flip: true}",
                "squeeze.training.batch_size=64",
                *settings,
            ],
        )

    def bytes_and(self, packed: Packed) -> tuple[Sequence[bytes], Sequence[bytes]]:
        """Return the files, and the packed ones."""
        return list(self.files.values()), list(packed.files.values())


class Packed:
    """The images of a folder in packs, and the bytes of the packs as a folder for other libraries.

    Args:
        source: the images.
        folder: for the other libraries; the store of the packs is beside it.
    """

    def __init__(self, source: Photographs, folder: Path) -> None:
        self.folder, self._source = folder, source

    def run(self) -> RunConfig:
        """Return the config of a run that reads packs."""
        return self._source.run(f"data.pack={{size: {self._source.edge}, quality: 90}}")

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        """Return the reduced images, as they are in the packs, by path."""
        pack = self.run().data.pack
        assert pack is not None
        return {path: packed_image(data, pack) for path, data in self._source.files.items()}

    def write(self) -> None:
        """Write the folder."""
        write_folder(self.folder, self.files)


def small_images(count: int, folder: Path) -> list[Photographs]:
    """Return Tiny-ImageNet's images of 64 pixels, if they are there."""
    if not (real_data() / "tiny-imagenet-50" / "train.parquet").is_file():
        return []
    title, files = small_files(count)
    return [Photographs(title, files, 64, 64, folder)]


def prepared(config: RunConfig, store: Path | str) -> Run:
    """Ingest the images of a run and write their packs, if it has any.

    Args:
        config: of the run.
        store: a folder, or the address of a bucket.
    """
    run = create_run(config, Store(str(store)), "bench")
    execution = Execution(store=run.store.url, local=True)
    with PoolProvider(execution) as pools:
        for name in ("ingest", "pack") if config.data.pack is not None else ("ingest",):
            stage = StageId(name)
            run_stage(run, stage, execution=execution, observer=Silent(), pools=pools)
    return run


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write images below `train`, and the first of each class below `test`."""
    tested = set[str]()
    for path, data in files.items():
        splits = ["train"] if path[:4] in tested else ["train", "test"]
        tested.add(path[:4])
        for split in splits:
            target = folder / split / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def _stand_in(rng: np.random.Generator) -> bytes:
    """Return coarse and fine noise as a JPEG of about 80 kB."""
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC)).astype(np.float32)
    noisy = smooth + rng.normal(0, 18, smooth.shape).astype(np.float32)
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()
