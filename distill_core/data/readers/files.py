"""Images that are files of their own, read many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distill_core.data.folders import DatasetFolder
from distill_core.data.readers.record import ListedRecord, Loaded, Record

CHUNK = 256  # files requested together, which matters for remote folders
MISSING = "the file does not exist; if it is a link, it leads nowhere."
NOT_UTF8 = "its name is not UTF-8."


def load_files(root: DatasetFolder, listed: Sequence[ListedRecord]) -> Loaded:
    """Return images of no class yet, read together.

    Args:
        root: the dataset's folder.
        listed: the images.
    """
    named = [each.file for each in listed if each.uri == each.file.path]
    contents, current = root.read_listed(named)
    found, records = iter(contents), []
    for file, uri, _, name, problem in listed:
        data = next(found) if uri == file.path else b""
        if data is None:
            data, problem = b"", MISSING
        elif uri != file.path:
            problem = NOT_UTF8
        records.append(Record(-1, uri, 0, name, data, problem))
    return Loaded(records, current)


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
        for each, record in zip(some, load_files(root, some).records, strict=True):
            yield record._replace(label=labels[each.wnid])
