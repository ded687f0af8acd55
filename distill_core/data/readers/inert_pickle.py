"""Pickled containers, texts and numpy arrays, read without running any code of the file.

A pickle is a program. Here its instructions are examined before they run: only those that build
containers, texts and numbers are allowed, and the two classes that an array of numpy needs are
replaced by inert stand-ins, whose contents are checked and converted afterwards.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np

from distill_core.errors import DataError

# Instructions of protocols 0 to 5 that build values and refer to values.
VALUES = """
    MARK STOP POP POP_MARK DUP PROTO FRAME PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
    INT BININT BININT1 BININT2 LONG LONG1 BINFLOAT NONE NEWTRUE NEWFALSE
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_LIST APPEND APPENDS LIST
    EMPTY_DICT DICT SETITEM SETITEMS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
"""
# GLOBAL and STACK_GLOBAL find the stand-ins below and nothing else.
ALLOWED = frozenset([*VALUES.split(), "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"])
MAX_DIMENSIONS = 8
BYTE = "u1"


class _Inert:
    """Base of the stand-ins. Their classes have `__setstate__`, so no pickle can change them."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class _Type(_Inert):
    """A stand-in for `numpy.ndarray` as an argument."""


class _DType(_Inert):
    """A stand-in for the type of an array; its byte order and fields are ignored."""

    def __init__(self, kind: Any = "", *_: Any) -> None:
        self.kind = kind


class _Array(_Inert):
    """A stand-in for an array, with what its pickle states about it."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Encoded(_Inert):
    """Bytes that Python 3 has written as a text for `_codecs.encode`, in the one way it does."""

    def __new__(cls, text: Any, encoding: Any = "latin1") -> Any:
        """Return the bytes themselves.

        Raises:
            UnpicklingError: anything but a text in latin1.
        """
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise pickle.UnpicklingError("an encoding other than latin1")
        return text.encode("latin1")


STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Type,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _Encoded,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in.

        Raises:
            UnpicklingError: the class is another one.
        """
        if (stand_in := STAND_INS.get((module, name))) is None:
            raise pickle.UnpicklingError(f"the class {module}.{name}")
        return stand_in


def load(data: bytes, where: str) -> Any:
    """Return the value of a pickle; its texts of Python 2 are bytes, its arrays are uint8.

    Args:
        data: the file.
        where: names it in errors.

    Raises:
        DataError: it is damaged, or holds anything but containers, texts, numbers and arrays.
    """
    try:
        _check(data)
        return _converted(_Unpickler(io.BytesIO(data), encoding="bytes").load())
    except Exception as error:  # noqa: BLE001 - a damaged pickle raises anything
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise DataError(
            f"{where}: a pickle that is not read, because of {reason}. Only texts, numbers, lists "
            "and arrays of bytes are. Copy the file again, or convert the dataset to image folders."
        ) from None


def _check(data: bytes) -> None:
    """Refuse instructions that call something, and places in the memo that take up memory."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in ALLOWED:
            raise pickle.UnpicklingError(f"its instruction {opcode.name}")
        if opcode.name.endswith("PUT") and not 0 <= int(argument or 0) < len(data):
            raise pickle.UnpicklingError("a reference out of range")


def _converted(value: Any) -> Any:
    """Return a dictionary, its values, and the items of lists in them, with real arrays."""
    if isinstance(value, dict):
        return {key: _converted_item(item) for key, item in value.items()}
    return _converted_item(value)


def _converted_item(value: Any) -> Any:
    if not isinstance(value, _Array):
        return value
    _, shape, dtype, is_fortran, raw = value.state
    sizes = tuple(int(size) for size in shape)
    kind = dtype.kind.decode() if isinstance(dtype.kind, bytes) else dtype.kind
    if kind != BYTE or not isinstance(raw, bytes) or is_fortran:
        raise pickle.UnpicklingError("an array that is not one of bytes in rows")
    if len(sizes) > MAX_DIMENSIONS or min(sizes, default=0) < 0 or math.prod(sizes) != len(raw):
        raise pickle.UnpicklingError("an array of another size than its shape")
    return np.frombuffer(raw, np.uint8).reshape(sizes)
