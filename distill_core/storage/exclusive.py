"""Exclusive creation of a file from a complete sibling, on disks with and without hard links.

Three ways, each atomic for readers and with one winner among all processes. The first that the
file system supports is taken:

- a hard link, which fails where the name exists;
- a rename that fails where the name exists (Linux: vfat, exFAT, SMB, many FUSE file systems);
- a claim, for file systems that offer neither (9p and some container mounts, sshfs).

A claim is a hidden folder with the file in it, prepared under another name: renaming it is atomic
and fails where a claim with a file exists. The winner then moves its file to the final name. A
process that was killed in between has won, too: the next one to ask completes its move. So nothing
waits, and no claim has to be judged too old.

Links and renames decide at the final name and so exclude each other. A claim only excludes claims:
processes that share a folder should reach it through the same kind of mount.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from distill_core.storage.listing import PARTIAL

CLAIM = f".claim{PARTIAL}"
UNSUPPORTED = frozenset(
    {
        errno.EPERM,
        errno.EACCES,  # the folder can be written, since the sibling is in it
        errno.EOPNOTSUPP,
        errno.ENOTSUP,
        errno.ENOSYS,
        errno.EINVAL,
        errno.EMLINK,
        errno.EXDEV,
    }
)
TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY})
CLAIM_ATTEMPTS = 3  # an empty claim that some systems do not replace is removed in between

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


def publish(partial: Path, final: Path) -> bool:
    """Give a complete file its final name, unless that exists; return True to the one winner.

    Args:
        partial: the file, in the folder of `final`; afterwards it may exist or not.
        final: the name.

    Raises:
        NotImplementedError: the file system supports none of the three ways.
        OSError: it refused for another reason.
    """
    for way in (_link, _rename, _claim):
        try:
            way(partial, final)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
        else:
            return True
    raise NotImplementedError(str(final))


def _link(partial: Path, final: Path) -> None:
    os.link(partial, final)


def _rename(partial: Path, final: Path) -> None:
    """Rename without replacing, a system call that Python's library lacks."""
    if (renameat2 := _renameat2()) is None:
        raise OSError(errno.ENOSYS, "no renameat2")
    names = os.fsencode(partial), os.fsencode(final)
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(partial), None, str(final))


@lru_cache(maxsize=1)
def _renameat2() -> Any:
    """Return the function of the C library; None where there is none."""
    if sys.platform != "linux":
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        number, text = ctypes.c_int, ctypes.c_char_p
        function.argtypes, function.restype = (number, text, number, text, ctypes.c_uint), number
    return function


def _claim(partial: Path, final: Path) -> None:
    """Enter the claim of a name, and move the file from there to the name.

    Raises:
        FileExistsError: another process has won.
    """
    claim = final.with_name(f".{final.name}{CLAIM}")
    file = claim / partial.name
    _enter(claim, partial, final)
    _complete(claim, final)
    # Our file has left the claim: we moved it, or another process did. It is still there if the
    # name existed when we came, because a winner leaves its claim after it has the name.
    if file.exists():
        file.unlink()
        _remove(claim)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
    _remove(claim)


def _enter(claim: Path, partial: Path, final: Path) -> None:
    """Make a folder that holds the file the claim, which fails while another file is in there."""
    own = partial.with_name(f"{partial.name.removesuffix(PARTIAL)}{CLAIM}")
    own.mkdir()
    try:
        partial.rename(own / partial.name)
        for _ in range(CLAIM_ATTEMPTS):
            try:
                own.rename(claim)
            except OSError as error:
                if error.errno not in TAKEN:
                    raise
            else:
                return
            _complete(claim, final)
            if final.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
            _remove(claim)
        raise OSError(errno.EBUSY, f"{claim.name} holds a file that is not ours", str(claim))
    finally:
        (own / partial.name).unlink(missing_ok=True)
        _remove(own)


def _complete(claim: Path, final: Path) -> None:
    """Move the file in a claim, ours or that of a killed process, to the final name.

    Until the name exists, a claim only ever holds the file of its one winner.
    """
    with suppress(FileNotFoundError):
        for name in os.listdir(claim):
            ours = name.startswith(f".{final.name}.") and name.endswith(PARTIAL)
            if ours and not final.exists():
                os.rename(claim / name, final)


def _remove(folder: Path) -> None:
    """Remove a folder if it is empty."""
    with suppress(OSError):
        folder.rmdir()
