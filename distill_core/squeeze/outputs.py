"""The outputs of an imported teacher, brought into the order of the dataset's classes.

Axes: C classes of the dataset, K outputs of the file.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from distill_core.config.data import DataConfig
from distill_core.config.training import ImportConfig
from distill_core.label_spaces.compare import ids_of, order_in
from distill_core.label_spaces.facts import SPACES
from distill_core.label_spaces.lists import class_ids
from distill_core.models.build import head_name


def count_outputs(config: ImportConfig, num_classes: int) -> int:
    """Return K, which differs from C where the file knows the classes of a larger label space."""
    return num_classes if config.label_space is None else SPACES[config.label_space].count


def places_of(
    config: ImportConfig, data: DataConfig, classes: Sequence[str], *, where: str
) -> tuple[int, ...]:
    """Return the output of every class of the dataset.

    Args:
        config: names the class of every output, or their label space; else they are in order.
        data: of the dataset; with a label space, the names of its classes may be words.
        classes: (C,) names of the classes by id, those of removed classes included.
        where: names the file in errors.

    Returns:
        (C,) places among the K outputs; empty: they are in order.

    Raises:
        ConfigError: the file lacks a class, or its label space cannot be read.
        DataError: the dataset has other classes than its own label space.
    """
    if config.label_space is not None:
        names = classes
        if data.label_space is not None:
            names = ids_of(classes, data.label_space, where=data.path or data.format)
        return order_in(names, class_ids(config.label_space), where=where)
    return tuple(torch.argsort(torch.tensor(config.outputs)).tolist()) if config.outputs else ()


def take_outputs(model: nn.Module, places: Sequence[int]) -> None:
    """Keep some outputs of a network, in another order.

    Args:
        model: the network; its head is changed.
        places: of the outputs that are kept.
    """
    head = model.get_submodule(head_name(model))
    assert isinstance(head, nn.Linear)
    rows = torch.tensor(places)
    for name, parameter in list(head.named_parameters()):
        setattr(head, name, nn.Parameter(parameter.detach()[rows].clone()))
    head.out_features = len(places)
