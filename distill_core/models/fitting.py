"""Fitting the tensors of a file to a network: their names, shapes and class count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

import torch
from torch import Tensor, nn

from distill_core.config.training import ModelConfig
from distill_core.errors import ConfigError
from distill_core.label_spaces.facts import SPACES
from distill_core.models.build import build_model, head_name, skeleton, with_weights
from distill_core.models.key_maps.incompatible import incompatibility
from distill_core.models.key_maps.lookup import key_maps_of
from distill_core.models.state_dicts import COMPUTED, COUNTER, Names, names_in_network

Shape = tuple[int, ...]


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
    names = names_of(state, model, config).renamed
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
    names = names_of(shapes, model, config).renamed
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


def names_of(names: Iterable[str], model: nn.Module, config: ModelConfig) -> Names:
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
