"""The names of files in a dataset: which are images, and how they are written in messages."""

from __future__ import annotations

import posixpath

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
EXTENSIONS = (*JPEG, ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_ENDINGS = frozenset(ending[1:] for ending in EXTENSIONS)


def is_image(path: str) -> bool:
    """Return whether a file is an image by its name, as torchvision decides."""
    # As `posixpath.splitext`, in less than half of its time: dots alone are not before an ending.
    before, _, ending = path.rpartition(".")
    return ending.lower() in _ENDINGS and before.rpartition("/")[2].strip(".") != ""


def stem(path: str) -> str:
    """Return the name of a file without its folders and its last ending."""
    return posixpath.splitext(posixpath.basename(path))[0]


def printable(name: str) -> str:
    """Return a name in one line of printable characters, with escapes for all others."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def utf8(name: str) -> str:
    """Return a name with bytes that are not UTF-8 written as escapes."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()
