"""Images that are files of their own, read many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from distill_core.data.folders import DatasetFolder
from distill_core.data.readers.names import utf8
from distill_core.data.readers.record import ListedRecord, Record
from distill_core.errors import DataError

CHUNK = 256  # files requested together, which matters for remote folders
MISSING = "the file does not exist; if it is a link, it leads nowhere."


def read_files(root: DatasetFolder, paths: Sequence[str]) -> Iterator[tuple[str, bytes, str]]:
    """Yield path, content and problem of files; the problem is a sentence, empty if there is none.

    Args:
        root: the dataset's folder.
        paths: below it.
    """
    for start in range(0, len(paths), CHUNK):
        chunk = paths[start : start + CHUNK]
        named = [path for path in chunk if utf8(path) == path]
        try:
            files: dict[str, bytes] = dict(zip(named, root.read(named), strict=True))
        except DataError:  # a file is gone, or a link leads nowhere
            files = dict(_existing(root, named))
        for path in chunk:
            if utf8(path) != path:
                yield path, b"", "its name is not UTF-8."
            else:
                yield path, files.get(path, b""), "" if path in files else MISSING


def load_files(root: DatasetFolder, listed: Sequence[ListedRecord]) -> list[Record]:
    """Return images of no class yet, read together.

    Args:
        root: the dataset's folder.
        listed: the images.
    """
    files = read_files(root, [each.path for each in listed])
    return [
        Record(-1, each.uri, 0, each.name, data, problem or each.problem)
        for each, (_, data, problem) in zip(listed, files, strict=True)
    ]


def labelled(
    root: DatasetFolder, listed: Sequence[ListedRecord], classes: Sequence[str]
) -> Iterator[Record]:
    """Yield images with their labels, read many at a time.

    Args:
        root: the dataset's folder.
        listed: the images.
        classes: a label is a position in them.
    """
    labels = {name: label for label, name in enumerate(classes)} | {"": -1}
    for start in range(0, len(listed), CHUNK):
        some = listed[start : start + CHUNK]
        for each, record in zip(some, load_files(root, some), strict=True):
            yield replace(record, label=labels[each.wnid])


def _existing(root: DatasetFolder, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        with suppress(DataError):
            yield path, root.read([path])[0]
