"""The one format of a dataset whose config leaves it open, and a statement of what was found.

A config is resolved before a run is registered, so keys, names and workers depend on the format
itself and never on `auto`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from statistics import median
from typing import Any

from PIL import Image

from distill_core.config.data import DataConfig
from distill_core.config.load import validate_run
from distill_core.config.schema import RunConfig
from distill_core.data.detection.candidates import (
    TITLES,
    Candidate,
    candidates,
    is_named,
    splits,
)
from distill_core.data.detection.survey import TEST, TRAIN, Tree, survey
from distill_core.data.folders import DatasetFolder, locate
from distill_core.data.readers.compression import ARCHIVES, UNREADABLE
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.record import Reader, Split
from distill_core.errors import ConfigError, DataError
from distill_core.progress import Notice, ignore_notice

SAMPLED_IMAGES = 16  # of each of these parts
NAMED = 3  # classes in the statement


def resolve_run(config: RunConfig, *, notice: Notice = ignore_notice) -> RunConfig:
    """Return a run with the format and the number of classes of its dataset; see `resolve_data`."""
    data = resolve_data(config.data, notice=notice)
    if data == config.data:
        return config
    tree = config.model_dump(mode="json") | {"data": data.model_dump(mode="json")}
    return validate_run(tree, where=config.preset)


def resolve_data(config: DataConfig, *, notice: Notice = ignore_notice) -> DataConfig:
    """Return the config of a dataset with its format, its splits and its number of classes.

    Args:
        config: of the dataset; unchanged if it leaves nothing open.
        notice: called with sentences about what was found, if the format was open.

    Raises:
        ConfigError: the dataset can be read in several ways; all are listed.
        DataError: it cannot be read in any way.
    """
    if config.format == "auto":
        config, candidate = _detect(_in_its_folder(config))
        for line in statement(config, candidate):
            notice(line)
    if not config.num_classes:
        config = _changed(config, num_classes=len(open_reader(config).classes()))
    return config


def statement(config: DataConfig, candidate: Candidate) -> Iterator[str]:
    """Yield three sentences about a dataset; up to 32 images are read for their size.

    Args:
        config: with a format.
        candidate: what was found.
    """
    reader = open_reader(config)
    names, side = reader.classes(), _median_side(reader)
    splits_read: tuple[Split, ...] = ("train",) if config.split else ("train", "test")
    images = " + ".join(_count(reader, split) for split in splits_read)
    size = "" if side is None else f", {side} px median"
    yield f"{TITLES[candidate.train.kind]}, {len(names):,} classes, {images} images{size}."
    test = f"by the rule {config.split}" if config.split else candidate.test.title
    yield f"Train split: {candidate.train.title}. Test split: {test}."
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    yield f"Classes: {', '.join(names[:NAMED])}{more}."


def _detect(config: DataConfig) -> tuple[DataConfig, Candidate]:
    root = locate(config)
    tree = survey(root, named=(config.train.strip("/"), config.test.strip("/")))
    found = candidates(tree, config.train, None if config.split else config.test)
    if not found:
        raise _nothing(root, tree, config)
    usable: list[tuple[DataConfig, Candidate]] = []
    problems: list[DataError | ConfigError] = []
    for candidate in found:
        chosen = _applied(config, candidate)
        try:
            reader = open_reader(chosen)
            reader.classes("train")
            if not config.split:
                reader.classes("test")
        except (DataError, ConfigError) as error:
            problems.append(error)
        else:
            usable.append((chosen, candidate))
    if not usable:
        raise problems[0]
    if len(usable) > 1:
        titles = "; or ".join(candidate.title for _, candidate in usable)
        raise ConfigError(
            f"data.path: {root.url}: can be read in {len(usable)} ways: {titles}. Set data.format, "
            "data.train and data.test to one of them."
        )
    return usable[0]


def _applied(config: DataConfig, candidate: Candidate) -> DataConfig:
    """Return a config with the settings of a candidate, but with the lists of its own."""
    kind, test_kind = candidate.formats
    given = {name: getattr(config, name) for name in ("class_list", "label_list")}
    return _changed(
        config,
        format=kind,
        test_format=test_kind,
        train=candidate.train.name,
        test=config.test if config.split else candidate.test.name,
        **{name: value or candidate.lists.get(name) for name, value in given.items()},
    )


def _changed(config: DataConfig, **changes: Any) -> DataConfig:
    return DataConfig.model_validate(config.model_dump() | changes)


def _in_its_folder(config: DataConfig) -> DataConfig:
    """Return a config whose path is a folder, where it is the archive of the training split."""
    path = config.path or ""
    if not path.endswith((*ARCHIVES, *UNREADABLE)):
        return config
    folder, _, name = path.rpartition("/")
    return _changed(config, path=folder or ".", train=name)


def _nothing(root: DatasetFolder, tree: Tree, config: DataConfig) -> DataError:
    """Return the error about a dataset without splits that can be read."""
    top = [name for name in tree.files.get("", ()) if name.endswith(UNREADABLE)]
    if top:
        return DataError(
            f"{root.url}/{top[0]}: compressed in a way that is not read here. Decompress it once, "
            "and use the resulting .tar file."
        )
    needed = ((config.train, TRAIN, "train"), (config.test, TEST, "test"))
    for wanted, usual, key in needed[: 1 if config.split else 2]:
        there = [*tree.folders.get("", ()), *tree.files.get("", ())][:8]
        if is_named(wanted) and not splits(tree, [wanted.strip("/")]):
            return DataError(
                f"{root.url}: data.{key} = {wanted!r}: no images under this name; there are "
                f"{', '.join(there) or 'no files'}. Set data.{key} to a split that is there."
            )
        if not splits(tree, [wanted.strip("/"), *usual]):
            return DataError(
                f"{root.url}: found no {key} split; expected a folder, tar files or Parquet files "
                f"named {', '.join(usual)}, there are {', '.join(there) or 'no files'}. Set "
                f"data.{key} to its name, and data.format."
            )
    return DataError(
        f"{root.url}: its splits have formats that are not read together: "
        f"{'; '.join(s.title for s in splits(tree, (*TRAIN, *TEST)))}. Set data.format and "
        "data.test_format."
    )


def _count(reader: Reader, split: Split) -> str:
    """Return the number of images of a split, or of its archives, which are not counted before."""
    parts = reader.parts(split)
    counts = [part.count for part in parts]
    if min(counts, default=0) < 0:
        return f"(uncounted, in {len(parts):,} archives)"
    return f"{sum(counts):,}"


def _median_side(reader: Reader) -> int | None:
    """Return the median short side of some images in pixels, None if none can be opened."""
    parts: Sequence[Any] = reader.parts("train")
    chosen = {part.name: part for part in (*parts[:1], *parts[-1:])}
    sides: list[int] = []
    for part in chosen.values():
        for record in islice(reader.records(part, reader.classes()), SAMPLED_IMAGES):
            with suppress(Exception), Image.open(io.BytesIO(record.data)) as image:
                sides.append(min(image.size))
    return round(median(sides)) if sides else None
