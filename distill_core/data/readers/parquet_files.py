"""The Parquet files of a split: found by name, complete, and with the expected columns."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import count

import pyarrow as pa

from distill_core.data.folders import DatasetFolder
from distill_core.data.local_files import ListedFile
from distill_core.data.readers.record import Split
from distill_core.errors import DataError, one_line

EXPECTED = "image (struct<bytes: binary, path: string>) and label (an integer)"
PART = re.compile(r"(?P<stem>.*)-(?P<number>\d+)-of-(?P<total>\d+)\.parquet")
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
    for pattern in (name, f"{name}.parquet", f"{name}-*.parquet", f"{name}/*.parquet"):
        if files := [file for file in candidates if _matches(file.path, pattern)]:
            if not BY_NUMBER.search(name):
                _check_parts((file.path for file in files), root.url)
            return files
    raise DataError(
        f"{root.url}: no Parquet file for the split {name!r}; expected {name}.parquet, "
        f"{name}-*.parquet or a folder {name}. Set data.{split} to its name."
    )


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


def check_schema(schema: pa.Schema, where: str) -> None:
    """Check that a file has the columns of an image dataset, in any of their encodings.

    Raises:
        DataError: it has not.
    """
    names = one_line(", ".join(sorted(schema.names)))[:200]
    if not {"image", "label"} <= set(schema.names):
        raise DataError(f"{where}: columns {names}; expected {EXPECTED}. Rename them.")
    image, label = (schema.field(name).type for name in ("image", "label"))
    if not _holds_bytes(image) or not pa.types.is_integer(_decoded(label)):
        raise DataError(
            f"{where}: columns image ({image}) and label ({label}); expected {EXPECTED}. "
            "Embed the image files and number the classes."
        )


def _holds_bytes(image: pa.DataType) -> bool:
    if not pa.types.is_struct(image) or image.get_field_index("bytes") < 0:
        return False
    kind = _decoded(image.field("bytes").type)
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(test(kind) for test in tests)


def _decoded(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a column that may be dictionary-encoded."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def label_names(metadata: Mapping[bytes, bytes] | None) -> tuple[str, ...]:
    """Return the label names in Hugging Face's feature metadata, if there are any."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = features["label"]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


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
