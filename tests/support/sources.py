"""One dataset written in the layouts that people have it in."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

Classes = Mapping[str, Mapping[str, bytes]]  # images of each class, by name
Images = Mapping[str, Classes]  # of "train" and "test"
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


LAYOUTS: Mapping[str, Writer] = MappingProxyType(
    {
        "image folders": image_folders,
        "synset tars": synset_tars,
        "tar of tars": tar_of_tars,
        "tar of folders": tar_of_folders,
    }
)
