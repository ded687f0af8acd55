"""Reading torch checkpoints of other programs without executing code in them.

A checkpoint is a pickle, which can name any class or function of Python. torch's restricted reader
accepts the few that tensors need; numbers and arrays of numpy are accepted, too. Checkpoints of
trainers also hold their arguments and callbacks, whose classes often do not even exist on this
machine. Wherever such a class stands, an empty dictionary takes its place: it is created instead
of the object and never calls anything.
"""

from __future__ import annotations

import codecs
import io
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from contextlib import nullcontext
from typing import IO, Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct, scalar
from torch._subclasses.fake_tensor import FakeTensorMode

from distill_core.errors import DataError
from distill_core.redaction import redacted

GLOBAL = re.compile(r"GLOBAL ([\w.<>]+)")  # in the messages of torch's reader
MOST_CLASSES = 200  # of one file; a checkpoint has a few dozen at most
ORIGIN = "_stands_for"  # attribute of a stand-in: the class in the file
# Of metrics: the functions that rebuild numbers and arrays, under the names of numpy 1 and 2.
NUMPY: tuple[tuple[Any, str], ...] = (
    *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    (np.ndarray, "numpy.ndarray"),
    (np.dtype, "numpy.dtype"),
    *(
        (type(np.dtype(code)), f"numpy.dtypes.{type(np.dtype(code)).__name__}")
        for code in "?bhilqefd"
    ),
    (codecs.encode, "_codecs.encode"),
)
PAGE = (b"<!doctype html", b"<html", b"<?xml")
BEGINNING = 100  # bytes that tell files apart
ZIP_MAGIC = b"PK\x03\x04"
POINTER = b"version https://git-lfs"


def read_checkpoint(file: IO[bytes], *, where: str, shapes_only: bool = False) -> Any:
    """Return the content of a torch checkpoint; objects other than tensors and containers are {}.

    Args:
        file: written by torch.save; can seek.
        where: names it in errors.
        shapes_only: return tensors without numbers, which are not read either.

    Raises:
        DataError: it is no complete checkpoint, or it names a function of the operating system.
    """
    file.seek(0)
    beginning = file.read(BEGINNING)
    check_kind(beginning, where=where)
    if beginning.startswith(ZIP_MAGIC) and not zipfile.is_zipfile(file):
        raise DataError(
            f"{where}: not a complete torch checkpoint: its end is missing or damaged. Copy the "
            "file again."
        )
    names = _unknown_classes(file) - {name for _, name in NUMPY}
    for _ in range(MOST_CLASSES):
        stand_ins = [(_stand_in(name), spelling) for name in names for spelling in _spellings(name)]
        file.seek(0)
        try:
            with torch.serialization.safe_globals([*NUMPY, *stand_ins]), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns about foreign pickles
                with FakeTensorMode() if shapes_only else nullcontext():
                    return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            found = GLOBAL.search(str(error))
            if found is None or "is blocked" in str(error) or found[1] in names:
                raise _unreadable(file, error, where) from None
            names.add(found[1])
        except (
            RuntimeError,
            EOFError,
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            ArithmeticError,
            MemoryError,  # a file can state any size
        ) as error:
            raise _unreadable(file, error, where) from None
    raise DataError(
        f"{where}: more than {MOST_CLASSES} classes besides tensors. Save model.state_dict()."
    )


def origin(value: Any) -> str | None:
    """Return the class in whose place a stand-in was put; None for any other value."""
    return getattr(value, "__dict__", {}).get(ORIGIN)


def check_kind(beginning: bytes, *, where: str) -> None:
    """Refuse files that are often saved in place of a checkpoint.

    Args:
        beginning: of the file, `BEGINNING` bytes or more.
        where: names it in errors.

    Raises:
        DataError: a pointer of Git LFS, or a page of HTML.
    """
    start = beginning[:BEGINNING].lstrip().lower()
    if start.startswith(POINTER):
        raise DataError(
            f"{where}: not a checkpoint, but a Git LFS pointer to one. Run `git lfs pull` in "
            "the repository, or download the file itself."
        )
    if start.startswith(PAGE):
        raise DataError(
            f"{where}: not a checkpoint, but an HTML page. The address is that of a page about "
            "the file: download the file itself."
        )


def _unknown_classes(file: IO[bytes]) -> set[str]:
    """Return the classes of a file in the current format that need a stand-in."""
    file.seek(0)
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # noqa: BLE001 - the reader itself then reports what is wrong
        return set()
    return set(found)


def _stand_in(name: str) -> type:
    """Return a class whose objects are empty dictionaries, whatever they are created from."""

    def create(_cls: type, *_args: object, **_kwargs: object) -> OrderedDict[str, Any]:
        empty = OrderedDict[str, Any]()
        setattr(empty, ORIGIN, name)
        return empty

    return type("StandIn", (), {"__new__": create})


def _spellings(name: str) -> tuple[str, ...]:
    """Return the names under which torch may look a class up; it shortens those of built-ins."""
    return (name, f"builtins.{name}") if "." not in name else (name,)


def _unreadable(file: IO[bytes], error: Exception, where: str) -> DataError:
    text = str(error)
    named = GLOBAL.search(text)
    if named is not None:
        return DataError(
            f"{where}: it contains {named[1]}, which is code and not a weight; only tensors are "
            "accepted, not pickled code. Do not trust this file: save model.state_dict() again."
        )
    size = file.seek(0, io.SEEK_END)
    return DataError(
        f"{where}: {size} bytes cannot be read as plain weights ({first_line(error)}). "
        "Only tensors are accepted, not pickled code: save model.state_dict()."
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, shortened, without colour codes and advice."""
    text = redacted(re.sub(r"\x1b\[[\d;]*m", "", str(error))).strip()
    text = text.rpartition("WeightsUnpickler error: ")[2].strip()
    return (text.splitlines() or [type(error).__name__])[0][:160]
