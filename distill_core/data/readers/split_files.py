"""The archives of a split, found by a name, a glob or a brace pattern of the config."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from math import prod

from distill_core.data.files.local import ListedFile
from distill_core.data.folders import DatasetFolder
from distill_core.data.readers.compression import (
    ARCHIVES,
    COMPRESSED,
    UNREADABLE,
    is_compressed,
)
from distill_core.data.readers.record import Split
from distill_core.errors import ConfigError, DataError

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
GLOB = re.compile(r"[*?[]")
MAX_NAMES = 1_000_000  # that braces may stand for


def find_archives(root: DatasetFolder, name: str, split: Split) -> list[ListedFile]:
    """Return the tar files of a split: a file, a folder of files, a glob, or names in braces.

    Args:
        root: the dataset's folder.
        name: of the split below it; ``.`` is the folder itself.
        split: the split, for errors.

    Raises:
        ConfigError: braces that cannot be read.
        DataError: there is none, one of those in braces is missing, or none can be decompressed.
    """
    name = name.strip("/")
    names = expand_braces(name, f"data.{split}")
    if len(names) == 1:
        files = _matching(root, names[0])
    else:
        by_path = {file.path: file for each in _folders(names) for file in _in(root, each)}
        if missing := [each for each in names if each not in by_path]:
            raise DataError(
                f"{root.url}/{missing[0]}: no such file, one of {len(missing)} that are missing "
                f"of the {len(names)} in data.{split}. Copy them, or correct the pattern."
            )
        files = [by_path[each] for each in names]
    if not files:
        raise _none(root, name, split)
    return files


def expand_braces(name: str, key: str) -> list[str]:
    """Return the names that a pattern like ``train-{0000..0146}.tar`` or ``{a,b}`` stands for.

    Raises:
        ConfigError: a range counts down, or the names are too many.
    """
    pieces = BRACES.split(name)  # texts, and between them what braces hold
    choices = [_choices(text, key) for text in pieces[1::2]]
    if prod(map(len, choices)) > MAX_NAMES:
        raise ConfigError(f"{key}: {name} stands for more than {MAX_NAMES} names. Use a glob.")
    names = [pieces[0]]
    for options, after in zip(choices, pieces[2::2], strict=True):
        names = [f"{before}{option}{after}" for before in names for option in options]
    return names


def _choices(text: str, key: str) -> Sequence[str]:
    if not (match := RANGE.fullmatch(text)):
        return text.split(",")
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < MAX_NAMES:
        raise ConfigError(f"{key}: the range {{{text}}} is empty or too long. Write {{0..9}}.")
    return [f"{number:0{len(match[1])}d}" for number in range(first, last + 1)]


def _matching(root: DatasetFolder, name: str) -> list[ListedFile]:
    folder = name.rpartition("/")[0]
    if name in ("", "."):
        return _tars(_in(root, ""))
    if GLOB.search(folder):
        return _tars(file for file in root.files("").files if _matches(file.path, name))
    beside = _in(root, folder)
    for path in (name, *(f"{name}{ending}" for ending in ARCHIVES)):
        if exact := _tars(file for file in beside if file.path == path):
            return exact
    if inside := _tars(_in(root, name)):
        return inside
    numbered = _tars(file for file in beside if file.path.startswith(f"{name}-"))
    return numbered or _tars(file for file in beside if _matches(file.path, name))


def _tars(files: Iterable[ListedFile]) -> list[ListedFile]:
    """Return the tar files, compressed ones only where there is no uncompressed copy."""
    tars = [file for file in files if file.path.endswith(ARCHIVES)]
    plain = {file.path.removesuffix(".tar") for file in tars if not is_compressed(file.path)}
    return [f for f in tars if not is_compressed(f.path) or _without_ending(f.path) not in plain]


def _without_ending(path: str) -> str:
    ending = next(ending for ending in COMPRESSED if path.endswith(ending))
    return path.removesuffix(ending)


def _in(root: DatasetFolder, folder: str) -> list[ListedFile]:
    """Return the files directly in a folder, none where there is no such folder."""
    return root.files_in(folder).files if root.is_folder(folder) else []


def _folders(names: Sequence[str]) -> set[str]:
    return {name.rpartition("/")[0] for name in names}


def _matches(path: str, pattern: str) -> bool:
    """Return whether a path matches a glob, folder by folder: `*` stops at a slash."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _none(root: DatasetFolder, name: str, split: Split) -> DataError:
    near = "" if name in ("", ".") else name
    files = {*_in(root, name.rpartition("/")[0]), *_in(root, near)}
    if packed := sorted(f.path for f in files if f.path.endswith(UNREADABLE) and near in f.path):
        return DataError(
            f"{root.url}/{packed[0]}: compressed in a way that is not read here. Decompress it "
            f"once, and set data.{split} to the resulting .tar file."
        )
    return DataError(
        f"{root.url}: no tar file for the split {name!r}; expected {name}.tar, {name}-*.tar or a "
        f"folder {name} of tar files. Set data.{split} to its name, or to a pattern."
    )
