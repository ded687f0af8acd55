"""Statistics of every class in a checkpoint: mean and variance at each batch norm.

They stand beside the running statistics of the layers, as buffers `class_running_mean` and
`class_running_var`.

Source: the published code of LPLD (NeurIPS 2024), whose recover compares with them as it otherwise
does with the running statistics. It collects them as moving averages over batches of augmented
images, so their variances are those within batches.

Axes: K outputs of a network, ch channels of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from distill_core.config.training import ModelConfig
from distill_core.errors import ConfigError
from distill_core.models.fitting import names_of
from distill_core.models.state_dicts import CLASS_STATISTICS

KINDS = ("mean", "var")
REMEDY = "Set squeeze.imported.class_statistics=false to measure them on the dataset instead."


def class_statistics(
    state: Mapping[str, Tensor], model: nn.Module, config: ModelConfig, *, where: str
) -> dict[str, np.ndarray]:
    """Return the statistics of every class in a state dict.

    Args:
        state: by names in the file.
        model: the network, with weights or without.
        config: of the network.
        where: names the file in errors.

    Returns:
        (K, ch) float32 arrays ``00n.mean`` and ``00n.var`` of batch norm n, in registration order,
        which is how measured statistics are named. Empty: the file has none.

    Raises:
        ConfigError: a batch norm has none, they are of other shapes, or a variance is negative.
    """
    if not any(CLASS_STATISTICS.search(name) for name in state):
        return {}
    outputs = len(next(t for name, t in state.items() if CLASS_STATISTICS.search(name)))
    found = _by_layer(state, model, config)
    norms = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    rows: dict[str, np.ndarray] = {}
    for number, (layer, norm) in enumerate(norms):
        for kind in KINDS:
            name, shape = f"{layer}.class_running_{kind}", (outputs, norm.num_features)
            if (tensor := found.get(name)) is None:
                raise ConfigError(f"{where}: no {name!r}, unlike other layers. {REMEDY}")
            if tuple(tensor.shape) != shape:
                raise ConfigError(
                    f"{where}: {name!r} is {tuple(tensor.shape)}, expected {shape}. {REMEDY}"
                )
            if kind == "var" and bool((tensor < 0).any()):
                raise ConfigError(f"{where}: {name!r} has negative variances. {REMEDY}")
            rows[f"{number:03d}.{kind}"] = tensor.float().numpy()
    return rows


def without_images(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return which classes have the statistics that a layer starts with everywhere, (K,) bool."""
    starts = [
        (values == (0 if name.endswith(".mean") else 1)).all(axis=1)
        for name, values in rows.items()
    ]
    untouched: np.ndarray = np.all(starts, axis=0)
    return untouched


def _by_layer(
    state: Mapping[str, Tensor], model: nn.Module, config: ModelConfig
) -> dict[str, Tensor]:
    """Return the statistics by names in the network, which are those of the running ones."""
    tensors = {name: tensor for name, tensor in state.items() if CLASS_STATISTICS.search(name)}
    running = {name.replace("class_running_", "running_"): name for name in tensors}
    renamed = names_of(running, model, config).renamed
    return {
        ours.replace("running_", "class_running_"): tensors[running[name]]
        for name, ours in renamed.items()
    }
