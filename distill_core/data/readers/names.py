"""The names of files in a dataset: which are images, and how they are written in messages."""

from __future__ import annotations

import posixpath

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
EXTENSIONS = (*JPEG, ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


def is_image(path: str) -> bool:
    """Return whether a file is an image by its name, as torchvision decides."""
    return posixpath.splitext(path)[1].lower() in EXTENSIONS


def stem(path: str) -> str:
    """Return the name of a file without its folders and its last ending."""
    return posixpath.splitext(posixpath.basename(path))[0]


def printable(name: str) -> str:
    """Return a name in one line of printable characters, with escapes for all others."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def utf8(name: str) -> str:
    """Return a name with bytes that are not UTF-8 written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
