"""A dataset without images: the classes of a label space, for runs that read no real image.

Such a run imports its teachers, starts from noise, and trains no student. The classes have the ids
that they have in the label space, so the teacher's outputs stand for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distill_core.config.data import DataConfig
from distill_core.data.readers.record import Address, Part, Record, Split
from distill_core.errors import DataError
from distill_core.label_spaces.lists import class_ids


class ClassListReader:
    """Reads the names of the classes; there are no records and no addresses."""

    def __init__(self, config: DataConfig) -> None:
        assert config.label_space is not None
        self._space = config.label_space

    def classes(self, split: Split = "train") -> tuple[str, ...]:
        """Return the ids of the label space, in its order.

        Raises:
            ConfigError: timm, which has the list, is not installed, or there is no list.
        """
        return class_ids(self._space)

    def parts(self, split: Split) -> tuple[Part, ...]:
        """Return nothing."""
        return ()

    def notices(self, split: Split) -> list[str]:
        """Return that there are no images."""
        return ["the dataset is a list of classes and has no images"]

    def records(self, part: Part, classes: Sequence[str]) -> Iterator[Record]:
        """Yield nothing."""
        return iter(())

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Refuse every address.

        Raises:
            DataError: there are addresses.
        """
        if not addresses:
            return []
        raise DataError(
            f"data.format=classes: {len(addresses)} images were requested, but the dataset is a "
            "list of classes. Set data.format and data.path to a dataset with images."
        )
