"""Numbers of real images, before they are ingested, and where each number is from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distill_core.config.schema import RunConfig
from distill_core.config.split_rule import parse_rule
from distill_core.data.index_files import SPLITS
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.record import Part, Split
from distill_core.errors import DistillError
from distill_core.label_spaces.facts import SPACES


@dataclass(frozen=True)
class Counts:
    """The images of each split, unreadable ones included; None: not known."""

    train: int | None
    test: int | None
    source: str  # where the numbers are from, for people

    @property
    def total(self) -> int | None:
        """Return the images of both splits."""
        return None if self.train is None or self.test is None else self.train + self.test


def count_images(config: RunConfig) -> Counts:
    """Return the images of a dataset that is on this machine, or else those stated or published.

    A dataset in a bucket is not listed, since that can take minutes.
    """
    if config.data.images is None and (divided := _divided(config)) is not None:
        return divided
    found = [_known(config, split) for split in SPLITS]
    sources = dict.fromkeys(source for count, source in found if count is not None)
    return Counts(found[0][0], found[1][0], " and ".join(sources))


def count_parts(config: RunConfig) -> int | None:
    """Return the number of parts of a dataset on this machine; None: it is not known."""
    splits = SPLITS if config.data.split is None else SPLITS[:1]
    found = [_parts(config, split) for split in splits]
    return None if None in found else sum(len(each or ()) for each in found)


def _divided(config: RunConfig) -> Counts | None:
    """Return about how many images a rule leaves to train and to test on; None: not known."""
    data = config.data
    if data.split is None or (total := _count(config, "train")) is None:
        return None
    rule = parse_rule(data.split)
    if rule.kind == "fraction":
        test = round(rule.amount * total)
    elif rule.kind in ("first", "per_class"):
        test = int(rule.amount) * data.num_classes
    else:
        return None
    test = min(test, total)
    return Counts(total - test, test, f"counted, divided by {data.split}")


def _known(config: RunConfig, split: Split) -> tuple[int | None, str]:
    """Return the images of a split, and where their number is from."""
    data, place = config.data, SPLITS.index(split)
    if data.split is None and (count := _count(config, split)) is not None:
        return count, "counted"
    if data.images is not None:
        return data.images[place], "stated by data.images"
    space = None if data.label_space is None else SPACES[data.label_space]
    if space is not None and space.images is not None:
        return space.images[place], f"published for {space.name}"
    return None, ""


def _count(config: RunConfig, split: Split) -> int | None:
    parts = _parts(config, split)
    counts = [-1] if parts is None else [part.count for part in parts]
    return None if -1 in counts else sum(counts)


def _parts(config: RunConfig, split: Split) -> Sequence[Part] | None:
    """Return the parts of a split on this machine; None: it is elsewhere or cannot be read."""
    if "://" in (config.data.path or ""):
        return None
    try:
        return open_reader(config.data).parts(split)
    except DistillError:
        return None
