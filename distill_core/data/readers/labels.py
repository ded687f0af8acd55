"""The error about a label of no class."""

from __future__ import annotations

from distill_core.errors import DataError, shown


def stray_label(where: str, label: int | str, count: int, *, unnamed: bool = False) -> DataError:
    """Return the error about a label of no class; unlike a damaged image, it is never passed over.

    Args:
        where: names the file and the record.
        label: as stored.
        count: of the classes of the dataset.
        unnamed: the label is in range, but the file lists no name for it.
    """
    if unnamed:
        reason = f"its label {label} has no name in the metadata of its file"
    else:
        text = label if isinstance(label, int) or label.lstrip("-").isdecimal() else shown(label)
        reason = f"its label {text} is not one of the {count} classes, 0 to {count - 1}"
    return DataError(
        f"{where}: {reason}. Correct the labels, or the class names and data.num_classes."
    )
