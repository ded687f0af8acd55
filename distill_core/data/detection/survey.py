"""The names at the top of a dataset, as far as they decide its format.

Only folders that can be splits are listed, and in each of them the first class folders; and the
first members of the first archive of each folder are read. So a bucket with millions of objects
takes some ten requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from distill_core.data.folders import DatasetFolder
from distill_core.data.readers.archive_images import opened
from distill_core.data.readers.compression import ARCHIVES, archive_stem
from distill_core.data.readers.names import is_image
from distill_core.data.readers.tar_members import members
from distill_core.errors import DataError

TRAIN = ("train", "training")
TEST = ("val", "valid", "validation", "test", "testing")
SPLITS = (*TRAIN, *TEST)
HUB_FOLDER = "data"
CLASS_FOLDERS = 3  # listed in each split; the first one may be empty
FIRST_MEMBERS = 50
TELLING = (".tar", ".cls", ".cls.txt")  # endings of members that decide a format, besides images


@dataclass(frozen=True)
class Tree:
    """Some names of a dataset; paths are relative to its folder, which is `""`."""

    folders: Mapping[str, Sequence[str]] = field(default_factory=dict)  # names, by folder
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)  # names, by folder
    members: Mapping[str, Sequence[str]] = field(default_factory=dict)  # first ones, by archive

    def paths(self, folder: str, ending: str | tuple[str, ...] = "") -> list[str]:
        """Return the paths of the files in a folder whose names have an ending."""
        names = (name for name in self.files.get(folder, ()) if name.endswith(ending))
        return [join(folder, name) for name in names]


def join(folder: str, name: str) -> str:
    """Return the path of a name in a folder, which may be the dataset's."""
    return f"{folder}/{name}" if folder else name


def survey(root: DatasetFolder, *, named: Sequence[str] = ()) -> Tree:
    """Return the names at the top of a dataset.

    Args:
        root: the dataset's folder.
        named: splits of the config, which are listed whatever they are called.
    """
    folders: dict[str, Sequence[str]] = {}
    files: dict[str, Sequence[str]] = {}

    def visit(folder: str) -> None:
        folders[folder] = root.folders(folder)
        files[folder] = [path.rpartition("/")[2] for path in root.files_in(folder).paths]

    def visit_classes(folder: str) -> None:
        for first in folders[folder][:CLASS_FOLDERS]:
            visit(join(folder, first))
            for inner in folders[join(folder, first)][:1]:
                visit(join(join(folder, first), inner))

    visit("")
    for name in folders[""]:
        if name in named or name.lower() in (*SPLITS, HUB_FOLDER):
            visit(name)
            visit_classes(name)
    if not any(name in folders for name in (*named, *folders[""])):
        visit_classes("")  # they may be those of classes
    tree = Tree(folders, files)
    archives = [path for folder in files for path in _first_archives(tree, folder)]
    return Tree(folders, files, {path: _first_members(root, path) for path in archives})


def _first_archives(tree: Tree, folder: str) -> list[str]:
    """Return an archive of each beginning of a name, such as that of a split."""
    by_stem: dict[str, str] = {}
    for path in tree.paths(folder, ARCHIVES):
        by_stem.setdefault(archive_stem(path).rstrip("0123456789.tar-_")[:40], path)
    return list(by_stem.values())[:8]


def _first_members(root: DatasetFolder, path: str) -> list[str]:
    """Return those of the first members that decide a format, none if they cannot be read."""
    try:
        with opened(root, path, sparse=True) as stream:
            first = islice(members(stream, f"{root.url}/{path}"), FIRST_MEMBERS)
            names = [member.name for member in first]
    except DataError:
        return []  # the reader states what is wrong with it
    return [name for name in names if name.endswith(TELLING) or is_image(name)]
