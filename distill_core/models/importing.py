"""Importing teachers from safetensors files or torch checkpoints, without executing their code.

A file is read as a state dict, cleaned (entries and prefixes of other trainers, half precision),
and must then match the network of the configuration tensor by tensor.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from distill_core.config.training import ModelConfig
from distill_core.errors import ConfigError, DataError
from distill_core.models.class_statistics import REMEDY, class_statistics
from distill_core.models.fitting import fit_weights
from distill_core.models.spec import TeacherSpec
from distill_core.models.state_dicts import (
    CLASS_STATISTICS,
    check_tensors,
    choose_entry,
    names_in_network,
)
from distill_core.models.unpickling import check_kind, first_line, read_checkpoint
from distill_core.progress import Notice, ignore_notice
from distill_core.storage.digest import read_file
from distill_core.storage.filesystems import open_filesystem

StateDict = dict[str, Tensor]
Fate = Literal["left_out", "kept", "used"]
FATES: Mapping[Fate, str] = {  # of the statistics of every class
    "left_out": "are left out; the statistics stage measures them on the dataset",
    "kept": "are kept beside the teacher; no term of this run compares with them",
    "used": "are compared with as they are; squeeze.imported.class_statistics=false measures them "
    "on the dataset instead",
}


@dataclass(frozen=True)
class FoundWeights:
    """The state dict of a file, by the names that it has there."""

    state: StateDict
    entry: str = ""  # its path in a checkpoint; "": it is the checkpoint
    others: tuple[str, ...] = ()  # paths of further state dicts


@dataclass(frozen=True)
class ImportedNetwork:
    """A network with the weights of a file, and the statistics of classes beside them."""

    model: nn.Module  # float32, on the CPU
    statistics: Mapping[str, np.ndarray]  # see `class_statistics`; empty: none, or left out


def import_model(
    url: str,
    config: ModelConfig,
    *,
    num_classes: int,
    entry: str | None = None,
    notice: Notice = ignore_notice,
) -> nn.Module:
    """Return the network of `config` with the weights of a file, float32 on the CPU.

    Args:
        url: path or fsspec URL of a safetensors file or a torch checkpoint, or package:NAME.
        config: the network that the file must contain.
        num_classes: of its head.
        entry: path of the state dict in a checkpoint; None: the only one, or the usual one.
        notice: receives a sentence about each choice and about tensors that are left out.

    Raises:
        ConfigError: no such file, or it contains another network or class count.
        DataError: it cannot be read as weights, or they are not finite.
    """
    found = read_weights(url, entry)
    return fit_network(found, config, num_classes=num_classes, where=url, notice=notice).model


def fit_network(
    found: FoundWeights,
    config: ModelConfig,
    *,
    num_classes: int,
    where: str,
    statistics: Fate = "left_out",
    notice: Notice = ignore_notice,
) -> ImportedNetwork:
    """Return the network of `config` with weights that were read from a file.

    Args:
        found: the tensors of the file.
        config: the network that the file must contain.
        num_classes: K, of its head.
        where: names the file in errors and notices.
        statistics: what happens to statistics of every class.
        notice: receives a sentence about each choice and about tensors that are left out.

    Raises:
        ConfigError: another network or class count, or statistics of other shapes are to be used.
    """
    for sentence in _sentences(found, where):
        notice(sentence)
    model = fit_weights(found.state, config, num_classes=num_classes, where=where)
    rows: Mapping[str, np.ndarray] = {}
    if statistics != "left_out":
        try:
            rows = _statistics(found.state, model, config, num_classes, where)
        except ConfigError as error:
            if statistics == "used":
                raise
            notice(f"{error} They are left out.")
            return ImportedNetwork(model, {})
    if (first := next(filter(CLASS_STATISTICS.search, found.state), None)) is not None:
        notice(
            f"{where}: statistics of each of {len(found.state[first])} classes are not weights and "
            f"{FATES[statistics]} (first {first!r})."
        )
    return ImportedNetwork(model, rows)


def _statistics(
    state: StateDict, model: nn.Module, config: ModelConfig, num_classes: int, where: str
) -> Mapping[str, np.ndarray]:
    rows = class_statistics(state, model, config, where=where)
    counts = {len(values) for values in rows.values()}
    if counts - {num_classes}:
        raise ConfigError(
            f"{where}: statistics of {max(counts)} classes, but the network has {num_classes} "
            f"outputs. {REMEDY}"
        )
    return rows


def read_weights(url: str, entry: str | None = None) -> FoundWeights:
    """Return the tensors of a file by their names in it, floating ones as float32.

    Raises:
        ConfigError: it cannot be opened.
        DataError: it is not a state dict, is truncated, contains code, or is not finite.
    """
    data = read_file(url)
    if url.endswith(".safetensors"):
        found = FoundWeights(check_tensors(parse_safetensors(data, where=url), where=url))
    else:
        loaded = read_checkpoint(io.BytesIO(data), where=url)
        state, path, others = choose_entry(loaded, entry, where=url)
        found = FoundWeights(check_tensors(state, where=url), path, others)
    for name, tensor in found.state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise DataError(
                f"{url}: tensor {name!r} has NaN or infinite values, expected finite weights. "
                "The training has diverged: use an earlier checkpoint."
            )
    return found


def _sentences(found: FoundWeights, url: str) -> Iterator[str]:
    """Yield what a user should know about the choice of the weights."""
    if found.others:
        yield (
            f"{url}: the weights of the entry {found.entry!r} are used; squeeze.imported.entry can "
            f"choose {', '.join(map(repr, found.others))} instead."
        )
    elif found.entry not in ("", "state_dict", "model"):
        yield f"{url}: the weights of the entry {found.entry!r} are used."
    names = names_in_network(found.state)
    if names.leftovers:
        yield (
            f"{url}: {len(names.leftovers)} numbers of a profiler or an average are left out "
            f"(first {names.leftovers[0]!r})."
        )


def parse_safetensors(data: bytes, *, where: str) -> StateDict:
    """Return the tensors of a safetensors file.

    Raises:
        DataError: the file is incomplete or of another format.
    """
    check_kind(data, where=where)
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(
            f"{where}: {len(data)} bytes are not a complete safetensors file "
            f"({first_line(error)}). Copy the file again."
        ) from None


def read_description(url: str) -> TeacherSpec | None:
    """Return the description ``NAME.json`` beside an exported ``NAME.safetensors``, if any."""
    if not url.endswith(".safetensors"):
        return None
    beside = url.removesuffix(".safetensors") + ".json"
    fs, path = open_filesystem(beside)
    return TeacherSpec.from_json(read_file(beside), where=beside) if fs.isfile(path) else None
