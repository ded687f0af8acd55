"""The lists of a flat split: the class of each image, and the classes in the order of numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from distill_core.config.data import DataConfig
from distill_core.data.folders import DatasetFolder
from distill_core.data.readers.label_lists import (
    LabelList,
    check_devkit,
    parse_labels,
    read_classes,
    read_text,
)
from distill_core.data.readers.labels import number_of, numbered_classes, place_of
from distill_core.data.readers.names import stem
from distill_core.errors import ConfigError, DataError, shown


class FlatLabels:
    """The labels of flat splits.

    Labels that are numbers count from 0 in `data.class_list`, else in the training split's classes.

    Args:
        config: of the dataset.
        root: its folder.
    """

    def __init__(self, config: DataConfig, root: DatasetFolder) -> None:
        self._root = root
        self._list_address, self._classes_address = config.label_list, config.class_list
        self._num_classes, self._names_classes = config.num_classes, config.format == "flat"

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Return the classes that are listed.

        For numbers without names, these are `class_00000` and so on; none where the training split
        has another format and so names them.

        Raises:
            ConfigError: there is no list of labels.
            DataError: a list is missing or damaged.
        """
        listed = self.listed
        if listed.in_order:
            check_devkit(self.class_list, self.where)
        if listed.is_numbered:
            return self.class_list or self._numbered()
        names = set(listed.by_stem.values()) or set(self.class_list)
        return tuple(n for n in self.class_list if n in names) or tuple(sorted(names))

    @cached_property
    def listed(self) -> LabelList:
        """Return the labels of the images.

        Raises:
            ConfigError: there is no list.
            DataError: it is missing or damaged.
        """
        if self._list_address is None:
            raise ConfigError(
                "data.label_list: missing, but images without class folders need a list of their "
                "classes. Set data.label_list=FILE."
            )
        text = read_text(self._root, self._list_address, "data.label_list")
        return parse_labels(text, self.where)

    @cached_property
    def class_list(self) -> tuple[str, ...]:
        """Return the classes in the order of numbers; none: they are not listed."""
        if self._classes_address is None:
            return ()
        return read_classes(self._root, self._classes_address)

    @property
    def where(self) -> str:
        """Return the list of the labels as errors name it."""
        return f"data.label_list: {self._list_address}"

    def by_stem(self, split: str, image_names: Callable[[], Sequence[str]]) -> Mapping[str, str]:
        """Return the labels of a split by the names of the images, without their endings.

        Args:
            split: its name in errors.
            image_names: returns its images; called where the list is in their order.

        Raises:
            DataError: the list is of other images, or of other classes.
        """
        listed, classes = self.listed, self.class_list
        if not listed.in_order:
            return listed.by_stem
        stems = sorted(map(stem, image_names()))
        if len(stems) != len(listed.in_order):
            raise DataError(
                f"{self.where}: {len(listed.in_order)} labels for {len(stems)} images of "
                f"{split}. Use the list of these images."
            )
        if not all(0 < number <= len(classes) for number in listed.in_order):
            raise DataError(
                f"{self.where}: its numbers are not those of the {len(classes)} classes in "
                "data.class_list, 1 and so on. Use the list of these images."
            )
        return {
            name: classes[number - 1] for name, number in zip(stems, listed.in_order, strict=True)
        }

    def place(self, text: str, places: Mapping[str, int], name: str) -> int:
        """Return the position among the classes of the label of an image, which is named.

        Raises:
            DataError: it is of no class.
        """
        names = self.class_list or tuple(places)
        return place_of(
            text,
            names,
            places,
            f"{self.where}: {shown(name)}",
            hint="Numbers count from 0. Correct the list, or set data.class_list to the classes in "
            "the order of numbers.",
        )

    def sampled(self, text: str | None, name: str) -> int | None:
        """Return the label of an image as a number; None: it has none.

        Raises:
            DataError: it is of no class.
        """
        if not text:
            return None
        if self.listed.is_numbered and not self.class_list:
            return number_of(text)  # of the training split's classes, which may be named elsewhere
        return self.place(text, self._places, name)

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {name: place for place, name in enumerate(self.classes)}

    def _numbered(self) -> tuple[str, ...]:
        labels = map(int, self.listed.by_stem.values())
        count = self._num_classes or 1 + max(labels)
        return numbered_classes(count if self._names_classes else 0, self.where)
