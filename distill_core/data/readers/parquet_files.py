"""The Parquet files of a split: found by name and complete; labels compared by name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import count

from distill_core.data.files.local import ListedFile
from distill_core.data.folders import DatasetFolder
from distill_core.data.readers.record import Split
from distill_core.errors import DataError

PART = re.compile(r"(?P<stem>.*)-(?P<number>\d+)-of-(?P<total>\d+)\.parquet")
PART_ENDING = re.compile(r"-\d+(-of-\d+)?$")
HUB_FOLDER = "data"  # where the hub keeps the files of a dataset
BY_NUMBER = re.compile(r"[\d\]]-of-\d")  # in data.train: some parts of a set, on purpose


def find_files(root: DatasetFolder, name: str, split: Split) -> list[ListedFile]:
    """Return the files of a split: one named with or without its ending, a glob, or a folder.

    Args:
        root: the dataset's folder.
        name: of the split, below it.
        split: the split, for errors.

    Raises:
        DataError: there is none, or a set of numbered parts lacks one.
    """
    name = name.strip("/")
    fixed = name.split("*")[0].split("?")[0].split("[")[0].rpartition("/")[0]
    candidates = [f for f in root.files(fixed).files if f.path.endswith(".parquet")]
    patterns = (name, f"{name}.parquet", f"{name}-*.parquet", f"{name}/*.parquet")
    for pattern in (*patterns, *(f"{HUB_FOLDER}/{each}" for each in patterns)):
        if files := [file for file in candidates if _matches(file.path, pattern)]:
            if not BY_NUMBER.search(name):
                _check_parts((file.path for file in files), root.url)
            return files
    raise DataError(
        f"{root.url}: no Parquet file for the split {name!r}; expected {name}.parquet, "
        f"{name}-*.parquet or a folder {name}. Set data.{split} to its name"
        f"{_splits(candidates)}."
    )


def split_name(path: str) -> str:
    """Return the name of the split of a file, without the number of its part."""
    return PART_ENDING.sub("", path.removesuffix(".parquet"))


def _splits(files: Iterable[ListedFile]) -> str:
    """Return the splits that there are, by the names of their files, for an error."""
    found = {split_name(file.path) for file in files}
    return f" (there are {', '.join(sorted(found)[:8])})" if found else ""


def _check_parts(files: Iterable[str], where: str) -> None:
    """Refuse a set of files named ``<stem>-00000-of-00002.parquet`` that is not whole."""
    sets: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for path in files:
        if match := PART.fullmatch(path):
            sets[match["stem"]][match["total"]].add(int(match["number"]))
    for stem, by_total in sets.items():
        for total, numbers in by_total.items():
            if (part := _first_missing(numbers, int(total))) is not None:
                raise DataError(
                    f"{where}: {stem}-{part:0{len(total)}d}-of-{total}.parquet is missing, only "
                    f"{len(numbers)} of {int(total)} parts are there. Copy the rest, or set the "
                    "split to the parts that you want, by their numbers."
                )
        if len(by_total) > 1:
            counts = " and ".join(str(int(total)) for total in by_total)
            raise DataError(
                f"{where}: {stem} is there in {counts} parts. Remove the set that is not current."
            )


def _first_missing(numbers: set[int], total: int) -> int | None:
    """Return the first missing number of a set counted from 0, or from 1 where it is whole."""
    if numbers >= set(range(1, 1 + len(numbers))) and len(numbers) == total:
        return None
    first = next(number for number in count() if number not in numbers)
    return first if first < total else None


def label_map(names: Sequence[str], classes: Sequence[str], where: str) -> tuple[int, ...]:
    """Return the position in `classes` of every label of a file, which may order them differently.

    Args:
        names: of the labels of the file, from its metadata; none: those of `classes`.
        classes: of the dataset, unique.
        where: names the file in errors.

    Raises:
        DataError: the file has a class that the dataset does not have.
    """
    places = {name: place for place, name in enumerate(classes)}
    if unknown := [name for name in names if name not in places]:
        raise DataError(
            f"{where}: its metadata has the class {unknown[0]!r} ({len(unknown)} such classes), "
            f"which the first file of the training split does not have. Use one label list."
        )
    return tuple(places[name] for name in names or classes)


def _matches(path: str, pattern: str) -> bool:
    """Return whether a path matches a glob, folder by folder: `*` stops at a slash."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))
