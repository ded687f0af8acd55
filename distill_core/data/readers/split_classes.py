"""Checks of the class names of a split."""

from __future__ import annotations

from collections.abc import Sequence

from distill_core.data.readers.names import utf8
from distill_core.errors import DataError


def check_names(names: Sequence[str], known: Sequence[str], where: str) -> None:
    """Check that the class names of a split are UTF-8 and among those of the training split.

    Args:
        names: of the split.
        known: of the training split.
        where: names the split in errors.

    Raises:
        DataError: names the first class that is not.
    """
    present = set(known)
    if unknown := [name for name in names if name not in present]:
        raise DataError(
            f"{where}/{utf8(unknown[0])}: a class that the training split does not have "
            f"({len(unknown)} such classes). Both splits need the same classes."
        )
    for name in names:
        if utf8(name) != name:
            raise DataError(
                f"{where}/{utf8(name)}: the class name is not UTF-8. Rename the folder."
            )
