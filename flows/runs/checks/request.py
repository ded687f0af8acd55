"""The run that is checked before it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from distill_core.config.schema import RunConfig
from distill_core.config.split_rule import SplitRule, parse_rule
from distill_core.data.index_files import open_index
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.record import Reader
from distill_core.errors import DistillError, raise_all
from distill_core.label_spaces.facts import SPACES
from distill_core.sharding import ClassEntry
from distill_core.storage.store import Store
from flows.estimate.memory.real_data import ImageCounts
from tasks.execution import Execution


@dataclass(frozen=True)
class Request:
    """A run that is not complete, or one that does not exist yet."""

    config: RunConfig
    execution: Execution
    store: Store
    known: tuple[ClassEntry, ...] = ()  # classes of the version before
    complete: frozenset[str] = frozenset()  # kinds of stages
    dataset: str | None = None  # id of its index; None: it is not ingested yet

    @property
    def rule(self) -> SplitRule | None:
        """Return the rule that divides the training split; None: the dataset has a test split."""
        text = self.config.data.split
        return None if text is None else parse_rule(text)

    @cached_property
    def reader(self) -> Reader:
        """Return the reader of the dataset, which keeps what it has listed.

        Raises:
            ConfigError, DataError: the dataset cannot be opened.
        """
        return open_reader(self.config.data)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes of the training split.

        Raises:
            DataError: there is no such split.
        """
        return self.reader.classes()

    @cached_property
    def real_images(self) -> ImageCounts:
        """Return the images of both splits and of the largest class, as far as they are known.

        They are counted once they are ingested; before that, the config or a label space may state
        them.
        """
        if self.dataset is not None:
            index = open_index(self.store, self.dataset)
            largest = max(index.class_sizes("train").values(), default=0)
            return index.count_readable("train"), index.count_readable("test"), largest
        if self.config.data.images is not None:
            return (*self.config.data.images, None)
        name = self.config.data.label_space
        published = None if name is None else SPACES[name].images
        return (None, None, None) if published is None else (*published, None)

    @property
    def num_classes(self) -> int:
        """Return the number of classes of the config, or of the dataset if the config has none.

        Raises:
            ConfigError, DataError: it is counted, and the dataset cannot be opened.
        """
        return self.config.data.num_classes or len(self.classes)


Check = Callable[[Request], None]


def make(checks: tuple[Check, ...], request: Request) -> None:
    """Make checks, whatever each of them finds.

    Raises:
        DistillError: of the only check that fails.
        Problems: several fail.
    """
    errors: list[DistillError] = []
    for check in checks:
        try:
            check(request)
        except DistillError as error:
            errors.append(error)
    raise_all(errors)
