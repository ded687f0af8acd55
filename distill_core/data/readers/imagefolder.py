"""Reader of image folders: ``<path>/<split>/<class>/<image>``, deeper folders included."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from functools import cache

from distill_core.config.data import DataConfig
from distill_core.data.folders import locate
from distill_core.data.readers.record import Address, Record, Split
from distill_core.errors import DataError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
CHUNK = 256  # files requested together, which matters for remote folders


class ImageFolderReader:
    """Reads a folder of classes, named after them and numbered in alphabetical order."""

    def __init__(self, config: DataConfig) -> None:
        self._root = locate(config)
        self._folder = {"train": config.train.strip("/"), "test": config.test.strip("/")}
        self._paths = cache(self._list)

    def classes(self, split: Split = "train") -> tuple[str, ...]:
        """Return the names of the folders of a split.

        Raises:
            DataError: a name is not UTF-8, or the training split lacks a class of the other one.
        """
        names = self._class_folders(split)
        known = set(names if split == "train" else self._class_folders("train"))
        if unknown := [name for name in names if name not in known]:
            raise DataError(
                f"{self._where(split)}/{_utf8(unknown[0])}: a class that {self._where('train')} "
                "does not have. Both splits need the same class folders."
            )
        for name in names:
            if _utf8(name) != name:
                raise DataError(
                    f"{self._where(split)}/{_utf8(name)}: the class name is not UTF-8. "
                    "Rename the folder."
                )
        return tuple(names)

    def count(self, split: Split) -> int:
        """Return how many files a split has."""
        return len(self._paths(split))

    def records(self, split: Split, classes: Sequence[str]) -> Iterator[Record]:
        """Yield every file of a split.

        Raises:
            DataError: a class is missing in the training split.
        """
        labels = {name: label for label, name in enumerate(classes)}
        self.classes(split)
        paths = self._paths(split)
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            problems = [_problem(path) for path in chunk]
            readable = [p for p, problem in zip(chunk, problems, strict=True) if not problem]
            files = dict(zip(readable, self._root.read(readable), strict=True))
            for path, problem in zip(chunk, problems, strict=True):
                below = path.removeprefix(f"{self._folder[split]}/")
                wnid, _, name = below.partition("/")
                data = files.get(path, b"")
                yield Record(labels[wnid], _utf8(path), 0, _utf8(name), data, problem)

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Return whole files."""
        return self._root.read([uri for uri, _ in addresses])

    def _class_folders(self, split: Split) -> list[str]:
        if not self._root.is_folder(self._folder[split]):
            raise DataError(
                f"{self._where(split)}: no such folder, expected the {split} split. "
                f"Set data.{split} to its name."
            )
        return self._root.folders(self._folder[split])

    def _list(self, split: Split) -> list[str]:
        """Return the files inside class folders; files beside them belong to no class."""
        folder = self._folder[split]
        depth = folder.count("/") + 2
        return [path for path in self._root.files(folder) if path.count("/") >= depth]

    def _where(self, split: Split) -> str:
        return f"{self._root.url}/{self._folder[split]}"


def _problem(path: str) -> str:
    """Return why a file cannot be an image, by its name alone; empty if it may be one."""
    if _utf8(path) != path:
        return "its name is not UTF-8."
    ending = posixpath.splitext(path)[1]
    if ending.lower() not in EXTENSIONS:
        return f"its name ends in {ending!r}, which is not the suffix of an image format."
    return ""


def _utf8(name: str) -> str:
    """Return a name with bytes that are not UTF-8 written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
