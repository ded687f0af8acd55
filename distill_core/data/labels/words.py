"""The readable names of a dataset's classes, from files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from distill_core.config.data import DataConfig
from distill_core.data.folders import locate
from distill_core.errors import DistillError
from distill_core.label_spaces.words import PARSERS, ClassWords, words_of


def find_words(config: DataConfig, names: Sequence[str]) -> ClassWords:
    """Return readable names of classes; a dataset whose files cannot be read has none of its own.

    Args:
        config: of the dataset.
        names: ids of its classes, by label.
    """
    files: dict[str, bytes] = {}
    if config.path is not None:
        with suppress(DistillError):
            place = locate(config)
            for file in PARSERS:
                with suppress(DistillError):
                    files[file] = place.read([file])[0]
    return words_of(names, files)
