"""Importing teachers from safetensors files or torch checkpoints, without executing their code.

A file is read as a state dict, cleaned (wrappers and prefixes of other trainers, half precision),
and must then match the network of the configuration tensor by tensor.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from distill_core.config.training import ModelConfig
from distill_core.errors import ConfigError, DataError
from distill_core.label_spaces.facts import SPACES
from distill_core.models.build import head_name, skeleton
from distill_core.models.spec import TeacherSpec
from distill_core.redaction import redacted
from distill_core.storage.digest import read_file
from distill_core.storage.filesystems import open_filesystem

WRAPPERS = ("state_dict", "model")  # keys under which trainers keep the state dict
PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
COUNTER = "num_batches_tracked"  # missing in old checkpoints; has no effect in eval mode

StateDict = dict[str, Tensor]
Shape = tuple[int, ...]


def import_model(url: str, config: ModelConfig, *, num_classes: int) -> nn.Module:
    """Return the network of `config` with the weights of a file, float32 on the CPU.

    Args:
        url: path or fsspec URL of a safetensors file or a torch checkpoint.
        config: the network that the file must contain.
        num_classes: of its head.

    Raises:
        ConfigError: no such file, or it contains another network or class count.
        DataError: it cannot be read as weights, or they are not finite.
    """
    return fit_weights(read_state_dict(url), config, num_classes=num_classes, where=url)


def read_state_dict(url: str) -> StateDict:
    """Return the tensors of a file by their names in the network, floating ones as float32.

    Raises:
        ConfigError: it cannot be opened.
        DataError: it is not a state dict, is truncated, contains code, or is not finite.
    """
    parse = parse_safetensors if url.endswith(".safetensors") else _parse_checkpoint
    state = _clean(parse(read_file(url), where=url), where=url)
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise DataError(
                f"{url}: tensor {name!r} has NaN or infinite values, expected finite weights. "
                "The training has diverged: use an earlier checkpoint."
            )
    return state


def parse_safetensors(data: bytes, *, where: str) -> StateDict:
    """Return the tensors of a safetensors file.

    Raises:
        DataError: the file is incomplete or of another format.
    """
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(
            f"{where}: {len(data)} bytes are not a complete safetensors file ({_line(error)}). "
            "Copy the file again."
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

    Raises:
        ConfigError: another class count, or a tensor is missing, unknown or of another shape.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    model = check_shapes(shapes, config, num_classes=num_classes, where=where)
    expected = model.state_dict()
    absent = {n: torch.zeros((), dtype=torch.int64) for n in expected.keys() - state.keys()}
    fitted = {name: tensor.to(expected[name].dtype) for name, tensor in state.items()}
    model.load_state_dict(fitted | absent, assign=True)
    return model


def check_shapes(
    shapes: Mapping[str, Shape], config: ModelConfig, *, num_classes: int, where: str
) -> nn.Module:
    """Return the network of `config` without storage, whose tensors are those of a file.

    Raises:
        ConfigError: another class count, or a tensor is missing, unknown or of another shape.
    """
    model = skeleton(config, num_classes)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    _check_classes(shapes, f"{head_name(model)}.weight", num_classes, where)
    _check_names(shapes, expected, config, where)
    for name, shape in expected.items():
        if shapes.get(name, shape) != shape:
            raise ConfigError(
                f"{where}: tensor {name!r} is {shapes[name]}, {config.title} expects "
                f"{shape}. Set squeeze.model to the network in the file."
            )
    return model


def _parse_checkpoint(data: bytes, *, where: str) -> Any:
    """Read a torch checkpoint without executing code in it."""
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns about foreign pickles
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        raise DataError(
            f"{where}: {len(data)} bytes cannot be read as plain weights ({_line(error)}). "
            "Only tensors are accepted, not pickled code: save model.state_dict()."
        ) from None


def _clean(loaded: Any, *, where: str) -> StateDict:
    """Unwrap a state dict, strip prefixes, and make every floating tensor float32."""
    while wrapper := next((key for key in WRAPPERS if _holds_mapping(loaded, key)), None):
        loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not loaded:
        raise DataError(
            f"{where}: a {type(loaded).__name__}, expected a state dict of tensors by name. "
            "Save model.state_dict()."
        )
    state: StateDict = {}
    for key, value in loaded.items():
        if not isinstance(value, Tensor):
            raise DataError(
                f"{where}: {str(key)!r} is a {type(value).__name__}, expected a tensor. "
                f"Save only the weights, or save them under one of the keys {', '.join(WRAPPERS)}."
            )
        state[strip_prefixes(str(key))] = value.float() if value.is_floating_point() else value
    return state


def _holds_mapping(loaded: Any, key: str) -> bool:
    return isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping)


def strip_prefixes(name: str) -> str:
    """Return the name of a tensor without the prefixes that trainers add."""
    while prefix := next((p for p in PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return name


def _check_classes(shapes: Mapping[str, Shape], head: str, num_classes: int, where: str) -> None:
    weight = shapes.get(head)
    if weight is not None and len(weight) == 2 and weight[0] != num_classes:
        raise wrong_head(head, weight[0], num_classes, where=where)


def wrong_head(head: str, outputs: int, num_classes: int, *, where: str) -> ConfigError:
    """Return the error about a head of another size, with the label space that it may have.

    Args:
        head: name of its weight.
        outputs: that the file has.
        num_classes: that are expected.
        where: names the file.
    """
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
    missing = [n for n in expected if n not in shapes and not n.endswith(COUNTER)]
    unknown = [n for n in shapes if n not in expected]
    if missing or unknown:
        raise ConfigError(
            f"{where}: not the weights of {config.title}: {_count(missing, 'missing')}, "
            f"{_count(unknown, 'unknown')}. Set squeeze.model to the network in the file."
        )


def _count(names: list[str], what: str) -> str:
    first = f" (first {names[0]!r})" if names else ""
    return f"{len(names)} tensors {what}{first}"


def _line(error: BaseException) -> str:
    """Return the first line of an error's message, shortened."""
    return (redacted(str(error)).strip().splitlines() or [type(error).__name__])[0][:160]
