"""Reader of flat splits: one folder or tar file of images, and a list of their classes.

ImageNet's validation split has this form, with the list of the development kit, of Kaggle
(``LOC_val_solution.csv``) or of Caffe (``val.txt``); that of Tiny-ImageNet as well.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

from distill_core.config.data import DataConfig
from distill_core.data.files.local import ListedFile
from distill_core.data.folders import locate
from distill_core.data.readers.archive_images import content, members_of, opened
from distill_core.data.readers.compression import Sink
from distill_core.data.readers.files import labelled, load_files
from distill_core.data.readers.flat_labels import FlatLabels
from distill_core.data.readers.labels import evenly
from distill_core.data.readers.names import is_image, stem, utf8
from distill_core.data.readers.parts import (
    assemble,
    cut,
    is_current,
    one_each,
    stamp_of,
    stamp_of_pieces,
    with_lists,
)
from distill_core.data.readers.passed_over import NOT_FOLLOWED, OTHER, PassedOver
from distill_core.data.readers.record import Address, ListedRecord, Loaded, Part, Record, Split
from distill_core.data.readers.split_files import find_archives
from distill_core.data.readers.tar_members import members

SAMPLED = 1000  # images whose labels are looked at before a run starts
UNLISTED = "it is not in data.label_list."


class FlatReader:
    """Reads splits whose images lie side by side, in files of their own or in tar files."""

    def __init__(self, config: DataConfig) -> None:
        self._root = locate(config)
        self._name = {"train": config.train.strip("/"), "test": config.test.strip("/")}
        self._lists = FlatLabels(config, self._root)
        self._listing = cache(lambda split: self._root.files(self._name[split]))
        self._archives = cache(self._find_archives)
        self._labels = cache(self._label_all)
        self._images = cache(self._list_images)
        self._passed_over = {"train": PassedOver(), "test": PassedOver()}
        self.sink: Sink | None = None  # see `record.Unpacks`

    def classes(self, split: Split = "train") -> tuple[str, ...]:
        """Return the classes that are listed; see `FlatLabels.classes`."""
        return self._lists.classes

    def parts(self, split: Split) -> Sequence[Part]:
        """Return ranges of the files of a folder, or one part for each tar file."""
        archives = self._archives(split)
        pieces = cut(self._name[split], () if archives else self._images(split))
        parts = one_each(split, archives) if archives else assemble(split, pieces)
        return [replace(part, stamp=self._stamp(part.stamp)) for part in parts]

    def passed_over(self, split: Split) -> PassedOver:
        """Return what was passed over so far in archives."""
        return self._passed_over[split]

    def notices(self, split: Split) -> list[str]:
        """Return sentences about files that are passed over, of tar files once they were read."""
        if not self._archives(split):
            self._images(split)
        return self._passed_over[split].sentences()

    def records(self, part: Part, classes: Sequence[str]) -> Iterator[Record]:
        """Yield every image of a part.

        Raises:
            DataError: a label is of no class.
        """
        if (listed := self.listed(part, classes)) is not None:
            yield from labelled(self._root, listed, classes)
            return
        places = {name: place for place, name in enumerate(classes)}
        for uri, offset, name, data, problem in self._archived(part):
            text = self._labels(part.split).get(stem(name))
            label = -1 if text is None else self._lists.place(text, places, name)
            yield Record(label, uri, offset, name, data, problem or ("" if text else UNLISTED))

    def listed(self, part: Part, classes: Sequence[str]) -> Sequence[ListedRecord] | None:
        """Return the images of a folder with their classes; None for a tar file.

        Raises:
            DataError: a label is of no class.
        """
        if self._archives(part.split):
            return None
        places = {name: place for place, name in enumerate(classes)}
        found = []
        for file in self._files(part):
            name = utf8(posixpath.basename(file.path))
            text = self._labels(part.split).get(stem(name))
            wnid = "" if text is None else classes[self._lists.place(text, places, name)]
            problem = "" if text else UNLISTED
            found.append(ListedRecord(file, utf8(file.path), wnid, name, problem))
        return found

    def sample_labels(self, split: Split) -> list[int | None]:
        """Return the labels of some images, evenly spaced; of tar files, some of the list.

        Raises:
            DataError: one is a name that no class has, or the list is of other images.
        """
        listed = self._lists.listed
        if not self._archives(split):
            labels = self._labels(split)
            names = [posixpath.basename(f.path) for f in evenly(self._images(split), SAMPLED)]
            return [self._lists.sampled(labels.get(stem(utf8(name))), name) for name in names]
        if listed.in_order:
            return [number - 1 for number in evenly(listed.in_order, SAMPLED)]
        pairs = evenly([*listed.by_stem.items()], SAMPLED)
        return [self._lists.sampled(text, name) for name, text in pairs]

    def load(self, listed: Sequence[ListedRecord]) -> Loaded:
        """Read some images together."""
        return load_files(self._root, listed)

    def is_current(self, part: Part) -> bool:
        """Return whether the files of a part and the lists are those that were planned."""
        if self._archives(part.split):
            return is_current(part, self._root, self._stamp)
        return part.stamp == self._stamp(stamp_of_pieces([stamp_of(self._files(part))]))

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Return files, or ranges of bytes of tar files."""
        return self._root.read_ranges(addresses)

    def _archived(self, part: Part) -> Iterator[tuple[str, int, str, bytes, str]]:
        """Yield address, name, content and problem of every image of a tar file."""
        (uri,) = part.files
        where = f"{self._root.url}/{uri}"
        with opened(self._root, uri, sink=self.sink) as stream:
            for member in members(stream, where):
                name = posixpath.basename(member.name)
                if is_image(name):
                    yield uri, member.offset, name, *content(stream, member, where)
                else:
                    self._passed_over[part.split].add(OTHER, [f"{uri}/{member.name}"])

    def _files(self, part: Part) -> list[ListedFile]:
        """Return the images of a part that are files of their own."""
        return self._images(part.split)[part.first : None if part.last < 0 else part.last]

    def _stamp(self, stamp: str) -> str:
        """Return a stamp that depends on the lists as well."""
        return with_lists(stamp, self._lists.listed, self._lists.class_list)

    def _list_images(self, split: Split) -> list[ListedFile]:
        """Return the images of a split that are files, sorted by path."""
        listing = self._listing(split)
        others = [path for path in listing.paths if not is_image(path)]
        self._passed_over[split].add(OTHER, others)
        self._passed_over[split].add(NOT_FOLLOWED, listing.not_followed)
        return [file for file in listing.files if is_image(file.path)]

    def _find_archives(self, split: Split) -> list[ListedFile]:
        """Return the tar files of a split, none if it is a folder with images."""
        name = self._name[split]
        files = self._listing(split).files if self._root.is_folder(name) else []
        if any(is_image(file.path) for file in files):
            return []
        return find_archives(self._root, name, split)

    def _label_all(self, split: Split) -> Mapping[str, str]:
        """Return the labels of a split by the names of the images, without their endings."""
        return self._lists.by_stem(self._name[split], lambda: self._image_names(split))

    def _image_names(self, split: Split) -> list[str]:
        archives = self._archives(split)
        in_tars = (m.name for file in archives for m in members_of(self._root, file.path))
        names = in_tars if archives else (file.path for file in self._images(split))
        return [name for name in names if is_image(name)]
