"""The ``config.json`` that stands beside the ``model.safetensors`` of a published network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill_core.config.schema import RunConfig
from distill_core.config.training import TIMM, ModelConfig
from distill_core.errors import ConfigError, DataError
from distill_core.storage.digest import read_file
from distill_core.storage.filesystems import open_filesystem

WEIGHTS, BESIDE = "model.safetensors", "config.json"
PADDED = "tf_"  # beginning of the names of networks of timm that pad as TensorFlow does
PADDED_HERE = (f"{TIMM}{PADDED}", "efficientnet_lite")  # likewise, of the names of this project
TOLERANCE = 5e-4  # of a mean or a deviation; some configs round them to three places


@dataclass(frozen=True)
class HubConfig:
    """The facts of a network that decide whether its logits mean something; None: not stated."""

    num_classes: int | None
    mean: tuple[float, ...] | None  # of pixels in [0, 1]
    std: tuple[float, ...] | None
    side: int | None  # S in pixels, of the training
    architecture: str | None  # of timm


def check_hub_config(url: str, run: RunConfig, *, outputs: int) -> None:
    """Check that a run uses a published network as it was trained, where its config states it.

    Nothing is checked with `squeeze.imported.accept_any`.

    Args:
        url: of the weights; only a file named ``model.safetensors`` has a config beside it.
        run: as if the teacher were its only one.
        outputs: that the head must have, the number of classes unless the config differs.

    Raises:
        ConfigError: it has another class count, normalisation, size of image or padding.
        DataError: the config cannot be read.
    """
    imported = run.squeeze.imported
    found = read_hub_config(url)
    if found is None or (imported is not None and imported.accept_any):
        return
    _check_padding(found.architecture, run.squeeze.model, url)
    data = run.data
    pairs: Sequence[tuple[str, Any, Any]] = (
        ("data.num_classes", found.num_classes, outputs),
        ("data.mean", found.mean, data.mean),
        ("data.std", found.std, data.std),
        ("data.side", found.side, data.side),
    )
    for key, theirs, ours in pairs:
        if theirs is not None and not _equal(theirs, ours):
            raise ConfigError(
                f"{url}: its {BESIDE} has {_shown(theirs)}, but {key} = {_shown(ours)}. Set {key} "
                "to the value that the network was trained with, or set "
                "squeeze.imported.accept_any=true."
            )


def _check_padding(architecture: str | None, model: ModelConfig, url: str) -> None:
    """Refuse weights of a network that has the same tensors and pads in another way.

    timm has some networks twice: padded evenly, and as TensorFlow does. The batch norms of the two
    differ in their constants, too.
    """
    if architecture is None:
        return
    padded = model.name.startswith(PADDED_HERE)
    same = _without_padding(architecture) == _without_padding(model.name)
    if same and architecture.startswith(PADDED) != padded:
        raise ConfigError(
            f"{url}: its {BESIDE} has the architecture {architecture}, which has the tensors of "
            f"{model.title} and pads in another way. Set squeeze.model.name={TIMM}{architecture}, "
            "or set squeeze.imported.accept_any=true."
        )


def _without_padding(name: str) -> str:
    """Return the name of a network, here or in timm, which two ways of padding have in common."""
    return name.removeprefix(TIMM).partition(".")[0].removeprefix(PADDED).removesuffix("_small")


def read_hub_config(url: str) -> HubConfig | None:
    """Return the config beside a published network, or None where there is none.

    Raises:
        DataError: it is not a JSON object.
    """
    folder, slash, name = url.rpartition("/")
    if name != WEIGHTS:
        return None
    beside = f"{folder}{slash}{BESIDE}"
    fs, path = open_filesystem(beside)
    if not fs.isfile(path):
        return None
    try:
        tree = json.loads(read_file(beside))
        return _parsed(tree)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        raise DataError(
            f"{beside}: not the config of a published network, expected a JSON object with "
            "num_classes and pretrained_cfg. Copy it again, or remove it."
        ) from None


def _parsed(tree: Mapping[str, Any]) -> HubConfig:
    described: Mapping[str, Any] = tree.get("pretrained_cfg") or tree
    classes = tree.get("num_classes", described.get("num_classes"))
    size = described.get("input_size")
    architecture = tree.get("architecture", described.get("architecture"))
    return HubConfig(
        num_classes=None if classes is None else int(classes),
        mean=_numbers(described.get("mean")),
        std=_numbers(described.get("std")),
        side=None if size is None else int(size[-1]),
        architecture=None if architecture is None else str(architecture),
    )


def _numbers(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)


def _equal(theirs: Any, ours: Any) -> bool:
    if not isinstance(theirs, tuple):
        return bool(theirs == ours)
    return len(theirs) == len(ours) and all(
        abs(one - other) <= TOLERANCE for one, other in zip(theirs, ours, strict=True)
    )


def _shown(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
