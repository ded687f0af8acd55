"""Reader of image folders: ``<path>/<split>/<class>/<image>``, deeper folders included.

As in torchvision, a file is an image if its name ends like one; every other file is passed over.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache

from distill_core.config.data import DataConfig
from distill_core.data.folders import locate
from distill_core.data.local_files import ListedFile, Listing
from distill_core.data.readers.parts import Piece, assemble, cut
from distill_core.data.readers.record import Address, Part, Record, Split
from distill_core.errors import DataError

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
EXTENSIONS = (*JPEG, ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
OTHER = "is ignored, because its name is not that of an image"
OUTSIDE = "is ignored, because it lies in no class folder"
NOT_FOLLOWED = "is not followed, because its folder is listed elsewhere"
REASONS = (OTHER, OUTSIDE, NOT_FOLLOWED)
CHUNK = 256  # files requested together, which matters for remote folders


class PassedOver:
    """What a listing holds beside the images of the classes, counted, with an example of each."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}  # by reason
        self._counts = Counter[str]()

    def add(self, reason: str, paths: Sequence[str]) -> None:
        """Count some paths that are passed over for a reason."""
        if paths:
            self._first.setdefault(reason, paths[0])
            self._counts[reason] += len(paths)

    def sentences(self) -> list[str]:
        """Return a sentence for each reason, in the order of `REASONS`."""
        return [
            f"{_utf8(self._first[reason])} {reason}{_more(self._counts[reason] - 1)}."
            for reason in REASONS
            if reason in self._first
        ]


class ImageFolderReader:
    """Reads a folder of classes, named after them and numbered in alphabetical order."""

    def __init__(self, config: DataConfig) -> None:
        self._root = locate(config)
        self._folder = {"train": config.train.strip("/"), "test": config.test.strip("/")}
        self._surveyed = cache(self._survey)

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

    def parts(self, split: Split) -> Sequence[Part]:
        """Return blocks of classes, and ranges of the files of a class that has very many."""
        return self._surveyed(split)[0]

    def notices(self, split: Split) -> list[str]:
        """Return sentences about files and links of a split that are passed over."""
        return self._surveyed(split)[1]

    def records(self, part: Part, classes: Sequence[str]) -> Iterator[Record]:
        """Yield every image of a part, whose folders are listed again."""
        labels = {name: label for label, name in enumerate(classes)}
        folder = self._folder[part.split]
        for class_folder in part.files:
            wnid = class_folder.removeprefix(f"{folder}/")
            images = _images(self._root.below(folder, wnid))[part.first :]
            paths = [file.path for file in images]
            if part.last >= 0:
                paths = paths[: part.last - part.first]
            for start in range(0, len(paths), CHUNK):
                chunk = paths[start : start + CHUNK]
                for path, (data, problem) in zip(chunk, self._contents(chunk), strict=True):
                    name = path.removeprefix(f"{class_folder}/")
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

    def _survey(self, split: Split) -> tuple[tuple[Part, ...], list[str]]:
        """List a split class by class; return its parts, and what is passed over."""
        passed_over, folder = PassedOver(), self._folder[split]
        self.classes(split)

        def pieces() -> Iterator[Piece]:
            for name, listing in self._root.by_folder(folder):
                images = _images(listing)
                passed_over.add(NOT_FOLLOWED, listing.not_followed)
                if not name:
                    passed_over.add(OUTSIDE, [file.path for file in images])
                    continue
                passed_over.add(OTHER, [p for p in listing.paths if not _is_image(p)])
                yield from cut(f"{folder}/{name}", images)

        return assemble(split, pieces()), passed_over.sentences()

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


def _images(listing: Listing) -> list[ListedFile]:
    return [file for file in listing.files if _is_image(file.path)]


def _more(count: int) -> str:
    return f", and {count:,} more like it" if count else ""


def _utf8(name: str) -> str:
    """Return a name with bytes that are not UTF-8 written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
