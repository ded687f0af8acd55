"""Importing teachers from safetensors files or torch checkpoints, without executing their code.

A file is read as a state dict, cleaned (entries and prefixes of other trainers, half precision),
and must then match the network of the configuration tensor by tensor.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from distill_core.config.training import ModelConfig
from distill_core.errors import ConfigError, DataError
from distill_core.label_spaces.facts import SPACES
from distill_core.models.build import build_model, head_name, skeleton, with_weights
from distill_core.models.key_maps.incompatible import incompatibility
from distill_core.models.key_maps.lookup import key_maps_of
from distill_core.models.spec import TeacherSpec
from distill_core.models.state_dicts import (
    COMPUTED,
    COUNTER,
    Names,
    check_tensors,
    choose_entry,
    names_in_network,
)
from distill_core.models.unpickling import check_kind, first_line, read_checkpoint
from distill_core.progress import Notice, ignore_notice
from distill_core.storage.digest import read_file
from distill_core.storage.filesystems import open_filesystem

StateDict = dict[str, Tensor]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class FoundWeights:
    """The state dict of a file, by the names that it has there."""

    state: StateDict
    entry: str = ""  # its path in a checkpoint; "": it is the checkpoint
    others: tuple[str, ...] = ()  # paths of further state dicts


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
    for sentence in _sentences(found, url):
        notice(sentence)
    return fit_weights(found.state, config, num_classes=num_classes, where=url)


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
    if names.class_statistics:
        first = names.class_statistics[0]
        yield (
            f"{url}: statistics of each of {len(found.state[first])} classes are not weights and "
            f"are left out (first {first!r}); the statistics stage measures them on the dataset."
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


def fit_weights(
    state: Mapping[str, Tensor], config: ModelConfig, *, num_classes: int, where: str
) -> nn.Module:
    """Return the network of `config` holding `state`, float32 on the CPU.

    Args:
        state: by names in the network, or by those of one of the usual trainers.
        config: the network.
        num_classes: of its head.
        where: names the weights in errors.

    Raises:
        ConfigError: another class count, or a tensor is missing, unknown or of another shape.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    model = check_shapes(shapes, config, num_classes=num_classes, where=where)
    expected = model.state_dict()
    names = _names(state, model, config).renamed
    fitted = {
        ours: state[name].to(expected[ours].dtype).reshape(expected[ours].shape)
        for name, ours in names.items()
    }
    absent = expected.keys() - fitted.keys()
    counters = {name: torch.zeros((), dtype=torch.int64) for name in absent if _counts(name)}
    if computed := absent - counters.keys():
        own = build_model(config, num_classes, seed=0).state_dict()
        fitted |= {name: own[name] for name in computed}
    return with_weights(config, num_classes, fitted | counters, model)


def check_shapes(
    shapes: Mapping[str, Shape], config: ModelConfig, *, num_classes: int, where: str
) -> nn.Module:
    """Return the network of `config` without storage, whose tensors are those of a file.

    Raises:
        ConfigError: another class count, or a tensor is missing, unknown or of another shape.
    """
    model = skeleton(config, num_classes)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    names = _names(shapes, model, config).renamed
    found = {ours: shapes[name] for name, ours in names.items()}
    _check_classes(found, f"{head_name(model)}.weight", num_classes, where)
    _check_names(found, expected, config, where)
    reshaped = {name for table in key_maps_of(config) for name in table.reshaped}
    for name, shape in expected.items():
        if name in reshaped and prod(found[name]) == prod(shape):
            continue
        if found.get(name, shape) != shape:
            raise ConfigError(
                f"{where}: tensor {name!r} is {found[name]}, {config.title} expects "
                f"{shape}. Set squeeze.model to the network in the file."
            )
    return model


def _names(names: Iterable[str], model: nn.Module, config: ModelConfig) -> Names:
    """Return the name in a network of every tensor of a file."""
    maps = key_maps_of(config)
    return names_in_network(names, model.state_dict(), head=head_name(model), maps=maps)


def _counts(name: str) -> bool:
    return name.endswith(COUNTER)


def _check_classes(shapes: Mapping[str, Shape], head: str, num_classes: int, where: str) -> None:
    weight = shapes.get(head)
    if weight is not None and len(weight) == 2 and weight[0] != num_classes:
        raise _wrong_head(head, weight[0], num_classes, where)


def _wrong_head(head: str, outputs: int, num_classes: int, where: str) -> ConfigError:
    """Return the error about a head of another size, with the label space that it may have."""
    spaces = [name for name, space in SPACES.items() if space.listed and space.count == outputs]
    remedy = "Use a teacher of this dataset, or train one with squeeze."
    if spaces:
        remedy = (
            f"If its outputs are those of {spaces[0]}, set squeeze.imported.label_space="
            f"{spaces[0]}; else use a teacher of this dataset, or train one with squeeze."
        )
    return ConfigError(
        f"{where}: the head {head!r} has {outputs} classes, the dataset has {num_classes}. {remedy}"
    )


def _check_names(
    shapes: Mapping[str, Shape], expected: Mapping[str, Shape], config: ModelConfig, where: str
) -> None:
    missing = [n for n in expected if n not in shapes and not (_counts(n) or COMPUTED.search(n))]
    unknown = [n for n in shapes if n not in expected]
    if unknown and (reason := incompatibility(config, shapes)) is not None:
        raise ConfigError(f"{where}: not the weights of {config.title}: {reason}")
    if missing or unknown:
        raise ConfigError(
            f"{where}: not the weights of {config.title}: {_count(missing, 'missing')}, "
            f"{_count(unknown, 'unknown')}. Set squeeze.model to the network in the file."
        )


def _count(names: list[str], what: str) -> str:
    first = f" (first {names[0]!r})" if names else ""
    return f"{len(names)} tensors {what}{first}"
