"""Ways to read random crops for training: ours, and those of other libraries."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.squeeze_sources import prepared
from distill_core.config.schema import RunConfig
from distill_core.data.real_images import RealImages
from distill_core.squeeze.teacher import training_images
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.streaming import VARIABLE, StreamedSplit, source_of
from distill_core.training.supervised import augmentation_of
from tasks.stages.inputs import RunInputs

BATCH = 64
MEAN = STD = (0.5, 0.5, 0.5)


class Ours:
    """Batches as the training of a teacher gets them, read again in every epoch.

    Args:
        config: of the run; its images are ingested, and packed, before anything is measured.
    """

    def __init__(self, config: RunConfig) -> None:
        os.environ[VARIABLE] = "0"  # images are never held in memory, as those of a large dataset
        self._config = config
        self._folder = tempfile.TemporaryDirectory()
        run = prepared(config, Path(self._folder.name))
        self._real = RealImages(config.data, RunInputs(run).index, "train", decoders=1)

    def epoch(self, **training: str) -> int:
        """Read all images once, in random order; return how many."""
        config = self._with(training)
        images = training_images(self._real, config, runtime=TrainingRuntime())
        source = source_of(images, config, device="cpu")
        batches = source.batches(self._parts, config, first=0, share=slice(None))
        return sum(len(labels) for _, labels in batches)

    def pixels(self, **training: str) -> int:
        """Read all images once as uint8, which is what the CPU does where a GPU trains."""
        config, count = self._with(training), 0
        images = training_images(self._real, config, runtime=TrainingRuntime())
        assert isinstance(images, StreamedSplit)
        assert images.crops_of is not None
        for step, part in enumerate(self._parts):
            cuts = augmentation_of(config, len(part), step=step, share=slice(None)).cuts
            read = images.pixels_of(part) if cuts is None else images.crops_of(part, cuts)
            count += len(read)
        return count

    @property
    def _parts(self) -> list[np.ndarray]:
        """Return the positions of the images of each batch."""
        order = np.random.default_rng(0).permutation(len(self._real.labels))
        return [order[start : start + BATCH] for start in range(0, len(order), BATCH)]

    def _with(self, training: dict[str, str]) -> RunConfig:
        """Return the config with other settings of its training."""
        squeeze = self._config.squeeze
        assert squeeze.training is not None
        changed = squeeze.training.model_copy(update=training)
        return self._config.model_copy(
            update={"squeeze": squeeze.model_copy(update={"training": changed})}
        )


class Others:
    """Batches of the same augmentation, read by other libraries.

    Args:
        folder: with a folder of images per class below `train`.
        side: of the crops, in pixels.
    """

    def __init__(self, folder: Path, *, side: int) -> None:
        self._folder = folder
        self._transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(side),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def torchvision(self) -> int:
        """Read all images once through ImageFolder and DataLoader; return how many."""
        loader = DataLoader(self._images, batch_size=BATCH, shuffle=True)
        return sum(len(labels) for _, labels in loader)

    @property
    def webdataset(self) -> Callable[[], int] | None:
        """Return the way of the library webdataset; None: it is not installed."""
        return self._webdataset if find_spec("webdataset") else None

    @property
    def litdata(self) -> Callable[[], int] | None:
        """Return the way of the library litdata; None: it is not installed."""
        return self._litdata if find_spec("litdata") else None

    @property
    def mosaicml(self) -> Callable[[], int] | None:
        """Return the way of the library mosaicml-streaming; None: it is not installed."""
        return self._mosaicml if find_spec("streaming") else None

    @property
    def _crop(self) -> Callable[[bytes], torch.Tensor]:
        """Return what makes the input of a network of a file, by the decoder of ImageFolder."""
        transform = self._transform
        return staticmethod(
            lambda data: transform(Image.open(io.BytesIO(data)).convert("RGB"))
        )  # an attribute of a class, which would bind a function

    @cached_property
    def _images(self) -> ImageFolder:
        return ImageFolder(str(self._folder / "train"), self._transform)

    def _webdataset(self) -> int:
        import webdataset

        samples = webdataset.WebDataset(str(self._archive), shardshuffle=False).shuffle(1000)
        decoded = samples.decode("pil").to_tuple("jpg", "cls")
        return _counted(decoded.map_tuple(self._transform, int).batched(BATCH))

    def _litdata(self) -> int:
        import litdata

        class Images(litdata.StreamingDataset):  # type: ignore[misc]
            crop = self._crop

            def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
                data, label = super().__getitem__(index)
                return self.crop(data), label

        dataset = Images(str(self._chunks), shuffle=True)
        return _counted(litdata.StreamingDataLoader(dataset, batch_size=BATCH))

    def _mosaicml(self) -> int:
        import streaming

        class Images(streaming.StreamingDataset):  # type: ignore[misc]
            crop = self._crop

            def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
                sample = super().__getitem__(index)
                return self.crop(sample["image"]), sample["label"]

        dataset = Images(local=str(self._shards), shuffle=True, batch_size=BATCH)
        return _counted(DataLoader(dataset, batch_size=BATCH))

    @cached_property
    def _archive(self) -> Path:
        """Return a tar file of the images for the library webdataset."""
        path = self._folder.with_suffix(".tar")
        with tarfile.open(path, "w") as archive:
            for number, (file, label) in enumerate(self._images.samples):
                archive.add(file, f"{number:08d}.jpg")
                text = self._folder.with_suffix(".cls")
                text.write_text(str(label))
                archive.add(text, f"{number:08d}.cls")
        return path

    @cached_property
    def _chunks(self) -> Path:
        """Return a folder of chunks of the images for the library litdata."""
        import litdata

        path = self._folder.with_suffix(".litdata")
        litdata.optimize(
            fn=_sample,
            inputs=self._images.samples,
            output_dir=str(path),
            chunk_bytes="64MB",
            num_workers=1,
        )
        return path

    @cached_property
    def _shards(self) -> Path:
        """Return a folder of shards of the images for the library mosaicml-streaming."""
        import streaming

        path, columns = self._folder.with_suffix(".mds"), {"image": "bytes", "label": "int"}
        with streaming.MDSWriter(out=str(path), columns=columns, size_limit="64mb") as writer:
            for file, label in self._images.samples:
                writer.write({"image": Path(file).read_bytes(), "label": label})
        return path


def _sample(sample: tuple[str, int]) -> tuple[bytes, int]:
    """Return the bytes of an image, and its label."""
    return Path(sample[0]).read_bytes(), sample[1]


def _counted(batches: Iterable[tuple[torch.Tensor, object]]) -> int:
    return sum(len(images) for images, _ in batches)
