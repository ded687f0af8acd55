"""Reader of image folders: ``<path>/<split>/<class>/<image>``, deeper folders included.

As in torchvision, a file is an image if its name ends like one; every other file is passed over.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from distill_core.config.data import DataConfig
from distill_core.data.folders import locate
from distill_core.data.readers.record import Address, Record, Split
from distill_core.errors import DataError

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
EXTENSIONS = (*JPEG, ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
CHUNK = 256  # files requested together, which matters for remote folders


@dataclass(frozen=True)
class SplitFiles:
    """The files of a split, by what they are."""

    images: list[str]  # by their names
    others: list[str]  # in class folders, but not images by their names
    outside: list[str]  # images beside the class folders, of no class
    not_followed: list[str]  # links to folders


class ImageFolderReader:
    """Reads a folder of classes, named after them and numbered in alphabetical order."""

    def __init__(self, config: DataConfig) -> None:
        self._root = locate(config)
        self._folder = {"train": config.train.strip("/"), "test": config.test.strip("/")}
        self._listed = cache(self._list)

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
        """Return how many images a split has."""
        return len(self._listed(split).images)

    def notices(self, split: Split) -> list[str]:
        """Return sentences about files and links of a split that are passed over."""
        files = self._listed(split)
        told = (
            (files.others, "is ignored, because its name is not that of an image"),
            (files.outside, "is ignored, because it lies in no class folder"),
            (files.not_followed, "is not followed, because its folder is listed elsewhere"),
        )
        return [_notice(paths, text) for paths, text in told if paths]

    def records(self, split: Split, classes: Sequence[str]) -> Iterator[Record]:
        """Yield every image of a split.

        Raises:
            DataError: a class is missing in the training split.
        """
        labels = {name: label for label, name in enumerate(classes)}
        self.classes(split)
        paths = self._listed(split).images
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            for path, (data, problem) in zip(chunk, self._contents(chunk), strict=True):
                below = path.removeprefix(f"{self._folder[split]}/")
                wnid, _, name = below.partition("/")
                yield Record(labels[wnid], _utf8(path), 0, _utf8(name), data, problem)

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Return whole files."""
        return self._root.read([address.uri for address in addresses])

    def _class_folders(self, split: Split) -> list[str]:
        if not self._root.is_folder(self._folder[split]):
            raise DataError(
                f"{self._where(split)}: no such folder, expected the {split} split. "
                f"Set data.{split} to its name."
            )
        return self._root.folders(self._folder[split])

    def _list(self, split: Split) -> SplitFiles:
        """Return the files of a split; those of class folders are one level down or deeper."""
        folder = self._folder[split]
        listing, depth = self._root.files(folder), folder.count("/") + 2
        inside = [path for path in listing.paths if path.count("/") >= depth]
        beside = [path for path in listing.paths if path.count("/") < depth]
        return SplitFiles(
            images=[path for path in inside if _is_image(path)],
            others=[path for path in inside if not _is_image(path)],
            outside=[path for path in beside if _is_image(path)],
            not_followed=listing.not_followed,
        )

    def _contents(self, paths: Sequence[str]) -> list[tuple[bytes, str]]:
        """Return files, or why one cannot be used, as a sentence."""
        named = [path for path in paths if _utf8(path) == path]
        try:
            files: dict[str, bytes] = dict(zip(named, self._root.read(named), strict=True))
        except DataError:  # a file is gone, or a link leads nowhere
            files = dict(self._existing(named))
        unreadable = "the file does not exist; if it is a link, it leads nowhere."
        return [
            (files.get(path, b""), "" if path in files else unreadable)
            if _utf8(path) == path
            else (b"", "its name is not UTF-8.")
            for path in paths
        ]

    def _existing(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        for path in paths:
            with suppress(DataError):
                yield path, self._root.read([path])[0]

    def _where(self, split: Split) -> str:
        return f"{self._root.url}/{self._folder[split]}"


def _is_image(path: str) -> bool:
    """Return whether a file is an image by its name."""
    return posixpath.splitext(path)[1].lower() in EXTENSIONS


def _notice(paths: Sequence[str], text: str) -> str:
    more = f", and {len(paths) - 1:,} more like it" if len(paths) > 1 else ""
    return f"{_utf8(paths[0])} {text}{more}."


def _utf8(name: str) -> str:
    """Return a name with bytes that are not UTF-8 written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
