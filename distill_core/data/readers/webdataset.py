"""Reader of WebDataset shards: tar files in which the members of a sample have the same key.

The key of ``train/000017.seg.png`` is ``train/000017``, and ``seg.png`` is the name of the member
in its sample. An image is addressed by its shard, its first byte and its size.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain, islice
from typing import Any

from distill_core.config.data import DataConfig
from distill_core.data.files.local import ListedFile
from distill_core.data.folders import locate
from distill_core.data.readers.archive_images import content, opened
from distill_core.data.readers.compression import Sink
from distill_core.data.readers.label_lists import read_classes
from distill_core.data.readers.labels import number_of, numbered_classes, place_of
from distill_core.data.readers.names import EXTENSIONS
from distill_core.data.readers.parts import is_current, one_each, with_lists
from distill_core.data.readers.passed_over import OTHER, PassedOver
from distill_core.data.readers.record import Address, Part, Record, Split
from distill_core.data.readers.split_files import find_archives
from distill_core.data.readers.tar_members import Member, members
from distill_core.errors import DataError

KEY = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")  # as the library webdataset splits names
LABELS = ("cls", "cls.txt")
MAX_LABEL = 1000  # bytes
INTEGER = re.compile(r"-?\d{1,9}")
SAMPLED_SHARDS, SAMPLES = 4, 32  # whose labels are looked at before a run starts
Sample = dict[str, Member]  # members by their names in the sample


class WebDatasetReader:
    """Reads shards; labels are numbers in `data.class_list`, or names of classes.

    Without a list, numbered classes are named `class_00000` and so on, as many as
    `data.num_classes` or, if that is not set, as the training split has labels.
    """

    def __init__(self, config: DataConfig) -> None:
        self._root = locate(config)
        self._config = config
        self._name = {"train": config.train, "test": config.test}
        self._shards = cache(self._find)
        self._names = cache(self._class_names)
        self._passed_over = {"train": PassedOver(), "test": PassedOver()}
        self.sink: Sink | None = None  # see `record.Unpacks`

    def classes(self, split: Split = "train") -> tuple[str, ...]:
        """Return the classes of the list, or those that the labels of the training split name.

        Raises:
            DataError: there is no shard, or the class list is missing or damaged.
        """
        self._shards(split)
        return self._names()

    def parts(self, split: Split) -> Sequence[Part]:
        """Return one part for each shard; its samples are not counted before they are read."""
        parts = one_each(split, self._shards(split))
        return [replace(part, stamp=self._stamp(part.stamp)) for part in parts]

    def passed_over(self, split: Split) -> PassedOver:
        """Return what was passed over so far in archives."""
        return self._passed_over[split]

    def notices(self, split: Split) -> list[str]:
        """Return sentences about members that are passed over, as far as they were read."""
        return self._passed_over[split].sentences()

    def records(self, part: Part, classes: Sequence[str]) -> Iterator[Record]:
        """Yield the image of every sample of a shard.

        Raises:
            DataError: the shard is truncated or damaged, or a label is of no class.
        """
        (uri,) = part.files
        where = f"{self._root.url}/{uri}"
        places = {name: place for place, name in enumerate(classes)}
        # Labels that nothing names are those of the training split, which are not read once more.
        is_named = self._config.class_list is not None or self._config.num_classes
        names = self._names() if is_named else classes
        with opened(self._root, uri, sink=self.sink) as stream:
            for key, sample in self._samples(stream, where):
                if not (image := self._image(sample)):
                    self._passed_over[part.split].add(OTHER, [f"{uri}/{key}.{min(sample)}"])
                    continue
                label, problem = self._label(stream, sample, f"{where} sample {key}")
                place = -1
                if not problem:
                    place = place_of(_named(label, names), (), places, f"{where} sample {key}")
                data, unreadable = content(stream, image, where)
                name = posixpath.basename(image.name)
                yield Record(place, uri, image.offset, name, data, unreadable or problem)

    def is_current(self, part: Part) -> bool:
        """Return whether the shard and the class list are those that were planned."""
        return is_current(part, self._root, self._stamp)

    def sample_labels(self, split: Split) -> list[int | None]:
        """Return the labels of the first samples of some shards, evenly spaced.

        Raises:
            DataError: one is a name that no class has.
        """
        shards, labels = self._shards(split), list[int | None]()
        names = self._names()
        places = {name: place for place, name in enumerate(names)}
        for file in shards[:: -(-len(shards) // SAMPLED_SHARDS)]:
            where = f"{self._root.url}/{file.path}"
            for key, text in islice(self._labels_of(file), SAMPLES):
                number = int(text) if INTEGER.fullmatch(text) else None
                if text and number is None:
                    number = place_of(text, names, places, f"{where} sample {key}")
                labels.append(number)
        return labels

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Return ranges of bytes of the shards."""
        return self._root.read_ranges(addresses)

    def _stamp(self, stamp: str) -> str:
        """Return a stamp that depends on the class list as well."""
        return stamp if self._config.class_list is None else with_lists(stamp, self._names())

    def _find(self, split: Split) -> list[ListedFile]:
        return find_archives(self._root, self._name[split], split)

    def _class_names(self) -> tuple[str, ...]:
        if (address := self._config.class_list) is not None:
            return read_classes(self._root, address)
        if count := self._config.num_classes:
            return numbered_classes(count, self._root.url)
        labels = set(self._all_labels("train"))
        numbers = [number for label in labels if (number := number_of(label)) is not None]
        if len(numbers) == len(labels):
            return numbered_classes(1 + max(numbers, default=-1), self._root.url)
        return tuple(sorted(labels))

    def _all_labels(self, split: Split) -> Iterator[str]:
        """Yield the label of every sample, from the headers of the shards and the labels alone."""
        labels = (self._labels_of(file) for file in self._shards(split))
        yield from (label for _, label in chain.from_iterable(labels) if label)

    def _labels_of(self, file: ListedFile) -> Iterator[tuple[str, str]]:
        """Yield key and label of every sample of a shard that has an image; it may be empty."""
        where = f"{self._root.url}/{file.path}"
        with opened(self._root, file.path) as stream:
            for key, sample in self._samples(stream, where):
                if self._image(sample):
                    yield key, self._label(stream, sample, f"{where} sample {key}")[0]

    def _samples(self, stream: Any, where: str) -> Iterator[tuple[str, Sample]]:
        """Yield key and members of every sample: of consecutive members with the same key."""
        last, sample = "", Sample()
        for member in members(stream, where):
            match = KEY.fullmatch(member.name)
            key, name = (match[1], match[2].lower()) if match else (member.name, "")
            if sample and key != last:
                yield last, sample
                sample = {}
            last = key
            sample[name] = member
        if sample:
            yield last, sample

    def _image(self, sample: Sample) -> Member | None:
        """Return the image of a sample.

        Raises:
            DataError: it has several, and the config does not choose.
        """
        if (name := self._config.image_column) is not None:
            return sample.get(name.lower())
        found = [name for name in sample if f".{name.rpartition('.')[2]}" in EXTENSIONS]
        if len(found) > 1:
            raise DataError(
                f"{self._root.url}: a sample has the images {', '.join(sorted(found))}. Set "
                "data.image_column to the one to use."
            )
        return sample[found[0]] if found else None

    def _label(self, stream: Any, sample: Sample, where: str) -> tuple[str, str]:
        """Return the label of a sample, or why it has none, as a sentence."""
        column = self._config.label_column
        names = LABELS if column is None else (column.lower(),)
        member = next((sample[name] for name in names if name in sample), None)
        if member is None:
            return "", f"its sample has no {names[0]}."
        if member.problem or member.size > MAX_LABEL:
            return "", f"its {names[0]} cannot be used: {member.problem or 'it is too long.'}"
        data, _ = content(stream, member, where)
        text = data.decode(errors="replace").strip()
        return (text, "") if text else ("", f"its {names[0]} is empty.")


def _named(label: str, names: Sequence[str]) -> str:
    """Return the name of a class; a number counts in the list, whatever its names are."""
    number = number_of(label)
    return label if number is None or number >= len(names) else names[number]
