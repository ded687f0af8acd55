"""Text files that name the classes of a dataset, or the class of each image of a flat folder."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from distill_core.data.folders import DatasetFolder, open_place
from distill_core.data.readers.labels import number_of
from distill_core.data.readers.names import is_image, stem
from distill_core.errors import ConfigError, DataError, shown

MAX_BYTES = 2**28
WNID = re.compile(r"n\d{8}")
# A class and its boxes, each behind a class; names of classes may have spaces.
BOXES = re.compile(r"(.{1,200}?)(?: -?\d+){4}(?: (?:\1|\S+)(?: -?\d+){4})*")
HEADINGS = {"imageid", "image_id", "image", "filename", "file_name", "name", "file", "path", "id"}


@dataclass(frozen=True)
class LabelList:
    """The labels of the images of a split: names of classes, or numbers as texts."""

    by_stem: Mapping[str, str] = field(default_factory=dict)  # name of an image without its ending
    in_order: tuple[int, ...] = ()  # one number from 1 per image, in the order of their names

    @property
    def is_numbered(self) -> bool:
        """Return whether the labels are numbers, not names."""
        return bool(self.by_stem) and None not in map(number_of, self.by_stem.values())


def read_text(root: DatasetFolder, address: str, key: str) -> str:
    """Return a text file below the dataset's folder, or at an address of its own.

    Raises:
        ConfigError: the address cannot be opened.
        DataError: there is no such file, or it is no text.
    """
    if "://" in address or address.startswith("/"):
        folder, _, address = address.rpartition("/")
        root = open_place(folder or "/", key)
    (data,) = root.read([address])
    where = f"{key}: {root.url}/{address}"
    if len(data) > MAX_BYTES:
        raise DataError(f"{where}: {len(data):,} bytes, expected a list. Check the path.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{where}: not a text in UTF-8. Convert it, or check the path.") from None


def read_classes(root: DatasetFolder, address: str) -> tuple[str, ...]:
    """Return the classes of the file `data.class_list`; see `read_text` and `parse_classes`."""
    text = read_text(root, address, "data.class_list")
    return parse_classes(text, f"data.class_list: {address}")


def parse_classes(text: str, where: str) -> tuple[str, ...]:
    """Return the classes of a list, one per line, by id.

    A line is a name; or a wnid, a name before its number from 1, a name behind its number from 0,
    or a column before a tab; what follows is ignored.

    Raises:
        DataError: the list is empty, or has a name twice.
    """
    lines = _lines(text)
    firsts = [line.split(maxsplit=1)[0].rstrip(",") for line in lines]
    seconds = [line.split()[1:2] for line in lines]
    if all(map(WNID.fullmatch, firsts)) or seconds == [[str(n + 1)] for n in range(len(lines))]:
        names = firsts
    elif all("\t" in line for line in lines):
        names = [line.split("\t")[0].strip() for line in lines]
    elif firsts == [str(n) for n in range(len(lines))] and all(" " in line for line in lines):
        names = [line.split(maxsplit=1)[1] for line in lines]
    else:
        names = lines
    if not names:
        raise DataError(f"{where}: no class, expected one name per line. Check the file.")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{where}: the class {shown(twice[0])} is listed twice. Remove one line.")
    return tuple(names)


def parse_labels(text: str, where: str) -> LabelList:
    """Return the labels of a list: ``name class`` in each line, or a number in each line.

    Columns are separated by tabs, commas or spaces; further columns, boxes behind a class and a
    line of headings are ignored.

    Raises:
        DataError: a line has one column, or an image has two classes.
    """
    lines = _lines(text)
    numbers = [number for line in lines if (number := number_of(line)) is not None]
    if len(numbers) == len(lines):
        return LabelList(in_order=tuple(numbers))
    labels: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        fields = _fields(line)
        if number == 1 and fields[0].strip().lower() in HEADINGS:
            continue
        if len(fields) < 2 or not fields[1].strip():
            raise DataError(
                f"{where}: line {number} is {shown(line)}, expected the name of an image and its "
                "class. Correct the list."
            )
        label = fields[1].strip()
        if boxes := BOXES.fullmatch(label):
            label = boxes[1]
        if labels.setdefault(stem(fields[0].strip()), label) != label:
            raise DataError(
                f"{where}: line {number}: the image {shown(fields[0])} has a second class, "
                f"{shown(label)}. Correct the list."
            )
    return LabelList(by_stem=labels)


def check_devkit(classes: Sequence[str], where: str) -> None:
    """Check that a class list can be that of the development kit of ImageNet.

    Raises:
        ConfigError: there is none, or it is in alphabetical order, as that of the kit is not.
    """
    use = "Set data.class_list to the kit's list of wnids by ILSVRC2012_ID, such as map_clsloc.txt."
    if not classes:
        raise ConfigError(
            f"{where}: numbers without names of images, the development kit's, which count classes "
            f"in an order of their own. {use}"
        )
    if list(classes) == sorted(classes) and len(classes) > 1:
        raise ConfigError(
            f"{where}: numbers of the development kit, but data.class_list is in alphabetical "
            f"order, which is another one. {use}"
        )


def _lines(text: str) -> list[str]:
    return [line.strip("\r\n ") for line in text.split("\n") if line.strip()]


def _fields(line: str) -> list[str]:
    if "\t" in line:
        return line.split("\t")
    if "," in line:
        try:
            return next(csv.reader([line]))
        except csv.Error:  # a column of more than 128 KiB
            return [line]
    first, *rest = line.split(maxsplit=1)
    return [first, *rest] if is_image(first) else line.rsplit(maxsplit=1)
