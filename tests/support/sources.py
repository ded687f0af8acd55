"""One dataset written in the layouts that people have it in."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.support.datasets import write_parquet

Classes = Mapping[str, Mapping[str, bytes]]  # images of each class, by name
Images = Mapping[str, Classes]  # of "train" and "test"
COMPRESSORS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {".tar.gz": gzip.open, ".tgz": gzip.open, ".tar.bz2": bz2.open, ".tar.xz": lzma.open}
)
Writer = Callable[[Images, Path], dict[str, Any]]  # returns what the config needs to read them


def tar_bytes(files: Iterable[tuple[str, bytes]], **options: Any) -> bytes:
    """Return an archive of regular files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", **options) as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def write(path: Path, data: bytes) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def items(classes: Classes) -> Iterator[tuple[str, str, bytes]]:
    """Yield class, name and content of every image."""
    for wnid, files in classes.items():
        for name, data in files.items():
            yield wnid, name, data


def image_folders(images: Images, root: Path) -> dict[str, Any]:
    """Write ``<split>/<class>/<name>``."""
    for split, classes in images.items():
        for wnid, name, data in items(classes):
            write(root / split / wnid / name, data)
    return {"format": "imagefolder"}


def synset_tars(images: Images, root: Path) -> dict[str, Any]:
    """Write ``<split>/<class>.tar``."""
    for split, classes in images.items():
        for wnid, files in classes.items():
            write(root / split / f"{wnid}.tar", tar_bytes(files.items()))
    return {"format": "tars"}


def tar_of_tars(images: Images, root: Path) -> dict[str, Any]:
    """Write ``<split>.tar`` of ``<class>.tar``."""
    for split, classes in images.items():
        inner = [(f"{wnid}.tar", tar_bytes(files.items())) for wnid, files in classes.items()]
        write(root / f"{split}.tar", tar_bytes(inner))
    return {"format": "tars"}


def tar_of_folders(images: Images, root: Path) -> dict[str, Any]:
    """Write ``<split>.tar`` of ``<split>/<class>/<name>``, as ``tar cf train.tar train`` does."""
    for split, classes in images.items():
        files = [(f"{split}/{wnid}/{name}", data) for wnid, name, data in items(classes)]
        write(root / f"{split}.tar", tar_bytes(files))
    return {"format": "tars"}


def flat_validation(images: Images, root: Path) -> dict[str, Any]:
    """Write folders to train on and ``val/<name>`` with a list as on Kaggle."""
    image_folders({"train": images["train"]}, root)
    lines = ["ImageId,PredictionString"]
    for wnid, name, data in items(images["test"]):
        write(root / "val" / name, data)
        lines.append(f"{Path(name).stem},{wnid} 85 1 499 272 ")
    write(root / "LOC_val_solution.csv", "\n".join(lines).encode())
    flat = {"test_format": "flat", "label_list": "LOC_val_solution.csv"}
    return {"format": "imagefolder", "test": "val", **flat}


def devkit(images: Images, root: Path) -> dict[str, Any]:
    """Write ``train.tar`` of tars and ``val.tar`` with the lists of the development kit."""
    tar_of_tars({"train": images["train"]}, root)
    order = sorted(images["train"], key=lambda wnid: wnid[::-1])
    if order == sorted(order):
        order = order[::-1]
    flat = sorted((name, data, wnid) for wnid, name, data in items(images["test"]))
    write(root / "val.tar", tar_bytes((name, data) for name, data, _ in flat))
    numbers = [f"{1 + order.index(wnid)}\n" for _, _, wnid in flat]
    write(root / "ILSVRC2012_validation_ground_truth.txt", "".join(numbers).encode())
    listed = [f"{wnid} {number} a_name\n" for number, wnid in enumerate(order, 1)]
    write(root / "map_clsloc.txt", "".join(listed).encode())
    return {
        "format": "tars",
        "test": "val",
        "test_format": "flat",
        "label_list": "ILSVRC2012_validation_ground_truth.txt",
        "class_list": "map_clsloc.txt",
    }


def tiny_imagenet(images: Images, root: Path) -> dict[str, Any]:
    """Write the layout of Tiny-ImageNet, with its boxes and annotations."""
    for wnid, name, data in items(images["train"]):
        write(root / "train" / wnid / "images" / name, data)
    for wnid in images["train"]:
        write(root / "train" / wnid / f"{wnid}_boxes.txt", b"n_0.JPEG\t0\t0\t63\t63\n")
    lines = []
    for wnid, name, data in items(images["test"]):
        write(root / "val" / "images" / name, data)
        lines.append(f"{name}\t{wnid}\t0\t32\t44\t62\n")
    write(root / "val" / "val_annotations.txt", "".join(lines).encode())
    write(root / "wnids.txt", "\n".join(list(images["train"])[::-1]).encode())
    return {"format": "tiny", "test": "val"}


def webdataset(images: Images, root: Path) -> dict[str, Any]:
    """Write two shards per split, with numbers as labels and a list of classes."""
    wnids = sorted(images["train"])
    for split, classes in images.items():
        shards: list[list[tuple[str, bytes]]] = [[], []]
        for number, (wnid, name, data) in enumerate(items(classes)):
            label = (f"{Path(name).stem}.cls", str(wnids.index(wnid)).encode())
            shards[number % 2] += [(name, data), label] if number % 3 else [label, (name, data)]
        for number, files in enumerate(shards):
            write(root / f"{split}-{number:06d}.tar", tar_bytes(files))
    write(root / "classes.txt", "\n".join(wnids).encode())
    return {"format": "webdataset", "class_list": "classes.txt"}


def compressed(write_tars: Writer, ending: str) -> Writer:
    """Return a writer of the same tar files, compressed."""

    def write_compressed(images: Images, root: Path) -> dict[str, Any]:
        config = write_tars(images, root)
        for path in root.rglob("*.tar"):
            with COMPRESSORS[ending](path.with_suffix(ending), "wb") as target:
                target.write(path.read_bytes())
            path.unlink()
        return config

    return write_compressed


def hugging_face(images: Images, root: Path) -> dict[str, Any]:
    """Write two Parquet files per split, their classes named in an order of their own."""
    wnids = sorted(images["train"])
    for split, stem in (("train", "train"), ("test", "validation")):
        rows = [(name, (data, wnids.index(wnid))) for wnid, name, data in items(images[split])]
        for number in range(2):
            some = rows[number::2]
            write_parquet(
                root / "data" / f"{stem}-{number:05d}-of-00002.parquet",
                [row for _, row in some],
                names=wnids,
                paths=[name for name, _ in some],
                row_group_size=500,
            )
    return {"format": "parquet", "train": "data/train", "test": "data/validation"}


LAYOUTS: Mapping[str, Writer] = MappingProxyType(
    {
        "image folders": image_folders,
        "synset tars": synset_tars,
        "tar of tars": tar_of_tars,
        "tar of folders": tar_of_folders,
        "flat validation": flat_validation,
        "development kit": devkit,
        "Tiny-ImageNet": tiny_imagenet,
        "WebDataset": webdataset,
        "Hugging Face": hugging_face,
        "compressed synset tars": compressed(synset_tars, ".tar.xz"),
        "compressed tar of tars": compressed(tar_of_tars, ".tar.gz"),
        "compressed tar of folders": compressed(tar_of_folders, ".tgz"),
        "compressed WebDataset": compressed(webdataset, ".tar.bz2"),
        "compressed development kit": compressed(devkit, ".tar.gz"),
    }
)
