"""Labels as they are stored: numbers or names of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from distill_core.config.fields import MAX_CLASSES
from distill_core.errors import DataError, shown

MAX_DIGITS = 9
Item = TypeVar("Item")


def evenly(items: Sequence[Item], count: int) -> Sequence[Item]:
    """Return about so many items, evenly spaced, the first one included; all if there are fewer."""
    return items[:: max(1, -(-len(items) // count))]


def number_of(label: str) -> int | None:
    """Return the number that a text is; None: it is a name, or a number that no dataset has."""
    return int(label) if label.isdecimal() and len(label) <= MAX_DIGITS else None


def numbered_classes(count: int, where: str) -> tuple[str, ...]:
    """Return the names of classes that only have numbers: `class_00000` and so on.

    Raises:
        DataError: there are more than a dataset may have, so that a label is probably wrong.
    """
    if count > MAX_CLASSES:
        raise DataError(
            f"{where}: the largest label is {count - 1}, expected less than {MAX_CLASSES:,}. "
            "Correct the labels, or set data.num_classes."
        )
    return tuple(f"class_{number:05d}" for number in range(count))


def place_of(
    label: str, names: Sequence[str], places: Mapping[str, int], where: str, *, hint: str = ""
) -> int:
    """Return the position of a label among the classes of the dataset.

    Args:
        label: the name of a class, or its number.
        names: of the classes, by number.
        places: positions of the classes of the dataset, by name.
        where: names the record in errors.
        hint: a sentence that ends the error.

    Raises:
        DataError: it is of no class.
    """
    number = number_of(label)
    if label not in places and number is not None and number < len(names):
        label = names[number]
    if label not in places:
        raise stray_label(where, label, len(places), hint=hint)
    return places[label]


def stray_label(
    where: str, label: int | str, count: int, *, unnamed: bool = False, hint: str = ""
) -> DataError:
    """Return the error about a label of no class; unlike a damaged image, it is never passed over.

    Args:
        where: names the file and the record.
        label: as stored.
        count: of the classes of the dataset.
        unnamed: the label is in range, but the file lists no name for it.
        hint: a sentence that ends the error.
    """
    if unnamed:
        reason = f"its label {label} has no name in the metadata of its file"
    else:
        is_number = isinstance(label, int) or number_of(label.removeprefix("-")) is not None
        text = label if is_number else shown(str(label))
        reason = f"its label {text} is not one of the {count} classes, 0 to {count - 1}"
    remedy = hint or "Correct the labels, or the class names and data.num_classes."
    return DataError(f"{where}: {reason}. {remedy}")
