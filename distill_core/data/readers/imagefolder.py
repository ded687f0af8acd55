"""Reader of image folders: ``<path>/<split>/<class>/<image>``, deeper folders included.

The split ``.`` is the dataset's folder itself: ``<path>/<class>/<image>``.
As in torchvision, a file is an image if its name ends like one; every other file is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache

from distill_core.config.data import DataConfig
from distill_core.data.files.local import ListedFile, Listing
from distill_core.data.folders import locate
from distill_core.data.readers.files import labelled, load_files
from distill_core.data.readers.names import is_image, utf8
from distill_core.data.readers.parts import Piece, assemble, cut, stamp_of, stamp_of_pieces
from distill_core.data.readers.passed_over import NOT_FOLLOWED, OTHER, OUTSIDE, PassedOver
from distill_core.data.readers.record import Address, ListedRecord, Loaded, Part, Record, Split
from distill_core.data.readers.split_classes import check_names
from distill_core.errors import DataError


class ImageFolderReader:
    """Reads a folder of classes, named after them and numbered in alphabetical order."""

    def __init__(self, config: DataConfig) -> None:
        self._root = locate(config)
        self._folder = {"train": _folder(config.train), "test": _folder(config.test)}
        self._surveyed = cache(self._survey)
        self._files = lru_cache(1)(self._list)  # one part is read at a time

    def classes(self, split: Split = "train") -> tuple[str, ...]:
        """Return the names of the folders of a split.

        Raises:
            DataError: a name is not UTF-8, or the training split lacks a class of the other one.
        """
        names = self._class_folders(split)
        known = names if split == "train" else self._class_folders("train")
        check_names(names, known, self._where(split))
        return tuple(names)

    def parts(self, split: Split) -> Sequence[Part]:
        """Return blocks of classes, and ranges of the files of a class that has very many."""
        return self._surveyed(split)[0]

    def notices(self, split: Split) -> list[str]:
        """Return sentences about files and links of a split that are passed over."""
        return self._surveyed(split)[1]

    def records(self, part: Part, classes: Sequence[str]) -> Iterator[Record]:
        """Yield every image of a part, whose folders are listed again."""
        return labelled(self._root, self.listed(part), classes)

    def classes_of(self, part: Part, names: Sequence[str]) -> tuple[str, ...]:
        """Return nothing: the files of a part are named after their classes."""
        return ()

    def listed(self, part: Part, classes: Sequence[str] = ()) -> Sequence[ListedRecord]:
        """Return the images of a part, whose folders are listed again."""
        above = f"{self._folder[part.split]}/"
        found = []
        for class_folder, files in zip(part.files, self._files(part), strict=True):
            wnid, start = class_folder.removeprefix(above), len(class_folder) + 1
            for file in files:
                path = file.path
                found.append(ListedRecord(file, utf8(path), wnid, utf8(path[start:])))
        return found

    def is_current(self, part: Part) -> bool:
        """Return whether the folders of a part hold the files that were planned."""
        return part.stamp == stamp_of_pieces(map(stamp_of, self._files(part)))

    def load(self, listed: Sequence[ListedRecord]) -> Loaded:
        """Read some images together."""
        return load_files(self._root, listed)

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Return whole files."""
        return self._root.read([address.uri for address in addresses])

    def _list(self, part: Part) -> list[list[ListedFile]]:
        """List the images of a part, class by class."""
        folder = self._folder[part.split]
        chosen = slice(part.first, None if part.last < 0 else part.last)
        wnids = (each.removeprefix(f"{folder}/") for each in part.files)
        return [_images(self._root.below(folder, wnid))[chosen] for wnid in wnids]

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
                if len(images) < len(listing.files):
                    passed_over.add(OTHER, [p for p in listing.paths if not is_image(p)])
                yield from cut(f"{folder}/{name}".lstrip("/"), images)

        return assemble(split, pieces()), passed_over.sentences()

    def _where(self, split: Split) -> str:
        return f"{self._root.url}/{self._folder[split]}".rstrip("/")


def _folder(split: str) -> str:
    """Return the path of a split below the dataset's folder; empty: that folder itself."""
    return "" if split == "." else split.strip("/")


def _images(listing: Listing) -> list[ListedFile]:
    return [file for file in listing.files if is_image(file.path)]
