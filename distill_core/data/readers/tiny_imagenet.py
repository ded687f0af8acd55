"""Reader of Tiny-ImageNet's own layout.

``train/<wnid>/images/<image>`` with boxes beside them, ``val/images/<image>`` with their classes in
``val/val_annotations.txt``. Images have the same names as in other layouts: without ``images/``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distill_core.config.data import DataConfig
from distill_core.data.readers.flat import FlatReader
from distill_core.data.readers.imagefolder import ImageFolderReader
from distill_core.data.readers.record import Address, ListedRecord, Loaded, Part, Record, Split
from distill_core.data.readers.split_classes import check_names

IMAGES = "images"
ANNOTATIONS = "val_annotations.txt"


class TinyImageNetReader:
    """Reads folders of classes to train on, and a flat split with its annotations to test on."""

    def __init__(self, config: DataConfig) -> None:
        folder = config.test.strip("/")
        annotations = config.label_list or f"{folder}/{ANNOTATIONS}"
        flat = config.model_copy(update={"test": f"{folder}/{IMAGES}", "label_list": annotations})
        self._train, self._test = ImageFolderReader(config), FlatReader(flat)

    def classes(self, split: Split = "train") -> tuple[str, ...]:
        """Return the names of the folders, or those in the annotations.

        Raises:
            DataError: there is no such split, or the training split lacks a class.
        """
        names = self._train.classes()
        if split == "train":
            return names
        listed = self._test.classes("test")
        check_names(listed, names, "data.test")
        return listed

    def parts(self, split: Split) -> Sequence[Part]:
        """Return the parts of a split."""
        return self._train.parts(split) if split == "train" else self._test.parts(split)

    def notices(self, split: Split) -> list[str]:
        """Return sentences about files of a split that are passed over."""
        return self._train.notices(split) if split == "train" else self._test.notices(split)

    def records(self, part: Part, classes: Sequence[str]) -> Iterator[Record]:
        """Yield every image of a part."""
        if part.split == "test":
            yield from self._test.records(part, classes)
            return
        for record in self._train.records(part, classes):
            yield record._replace(name=record.name.removeprefix(f"{IMAGES}/"))

    def sample_labels(self, split: Split) -> Sequence[int | None]:
        """Return the labels of some images of the annotations; folders have none."""
        return () if split == "train" else self._test.sample_labels(split)

    def classes_of(self, part: Part, names: Sequence[str]) -> tuple[str, ...]:
        """Return nothing: folders and annotations name the classes."""
        return ()

    def listed(self, part: Part, classes: Sequence[str]) -> Sequence[ListedRecord] | None:
        """Return what is known of each image of a part from its listing."""
        if part.split == "test":
            return self._test.listed(part, self.classes())
        prefix = f"{IMAGES}/"
        return [
            each._replace(name=each.name.removeprefix(prefix)) for each in self._train.listed(part)
        ]

    def is_current(self, part: Part) -> bool:
        """Return whether the files of a part are those that were planned."""
        reader = self._train if part.split == "train" else self._test
        return reader.is_current(part)

    def load(self, listed: Sequence[ListedRecord]) -> Loaded:
        """Read some images together."""
        return self._train.load(listed)

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Return whole files."""
        return self._train.fetch(addresses)
