"""The outputs of an imported teacher, brought into the order of the dataset's classes.

Axes: C classes of the dataset, K outputs of the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from distill_core.config.data import DataConfig
from distill_core.config.training import ImportConfig
from distill_core.label_spaces.compare import ids_of, order_in
from distill_core.label_spaces.facts import SPACES
from distill_core.label_spaces.lists import class_ids
from distill_core.models.build import head_name
from distill_core.models.class_statistics import without_images
from distill_core.storage.statistics_files import encode_rows


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


def statistics_file(
    rows: Mapping[str, np.ndarray], places: Sequence[int], classes: Sequence[str]
) -> bytes:
    """Return the file of the statistics of those classes of which the checkpoint has seen images.

    Args:
        rows: (K, ch) each, by name, in the order of the outputs.
        places: of the outputs, by class; empty: they are in order.
        classes: (C,) names of the classes.
    """
    ordered = {name: values[list(places)] if places else values for name, values in rows.items()}
    known = np.flatnonzero(~without_images(ordered)).tolist()
    names = [classes[row] for row in known]
    return encode_rows(names, {name: values[known] for name, values in ordered.items()})
