"""State dicts in checkpoints of other programs: where they stand, and the names of their tensors.

A trainer stores the network beside its own state, sometimes several times (an average of the
weights, a second network), and under names of its own. Axes: C classes, ch channels.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from distill_core.errors import DataError
from distill_core.models.key_maps.key_map import KeyMap
from distill_core.models.unpickling import origin

PREFERRED = ("state_dict", "model")  # entries that hold the network, whatever else is there
AVERAGE = re.compile(r"(^|[_.])(ema|swa|averaged?)([_.]|$)")  # entries with averaged weights
OTHER = re.compile(
    r"(^|[_.])(optim\w*|lr_sched\w*|scheduler\w*|scaler|amp|loss\w*|criterion)([_.]|$)"
)
DEPTH = 3  # of dictionaries inside each other
PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
OWNERS = ("model.", "net.", "network.", "backbone.", "encoder.")  # attributes that hold a network
COUNTER = "num_batches_tracked"  # missing in old checkpoints; has no effect in eval mode
LEFTOVER = re.compile(
    r"(^|\.)(n_averaged|total_ops|total_params)$"
)  # of averaging and of profilers
CLASS_STATISTICS = re.compile(r"(^|\.)class_running_(mean|var)$")  # [C, ch] beside running_mean
HEADS = re.compile(r"^(?:head\.fc|head|fc|linear|classifier|last_linear)\.(weight|bias)$")
COMPUTED = re.compile(r"(^|\.)(relative_position_index|attn_mask)$")  # by the constructor
RENAMED = (
    # Residual networks in the checkpoints of some papers
    (re.compile(r"\.shortcut\."), ".downsample."),
    # torchvision's own checkpoints of DenseNet and of ViT, which are older than its networks
    (re.compile(r"(denselayer\d+)\.(norm|conv)\.([12])\."), r"\1.\2\3."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)


@dataclass(frozen=True)
class Names:
    """The names of a file's tensors in a network."""

    renamed: Mapping[str, str]  # name in the file -> name in the network
    leftovers: tuple[str, ...]  # tensors that are no part of a network
    class_statistics: tuple[str, ...]  # statistics of every class, beside those of all


def choose_entry(loaded: Any, entry: str | None, *, where: str) -> tuple[Any, str, tuple[str, ...]]:
    """Return the state dict of a checkpoint, its path in it, and the paths of all others.

    Averaged weights are used where there are no others, or where `entry` names them.

    Args:
        loaded: content of the checkpoint.
        entry: path of the state dict with dots, e.g. ``state_dict_ema``; None: the only one, or
            that under one of `PREFERRED`.
        where: names the file in errors.

    Raises:
        DataError: there is no such entry, or several and none is named.
    """
    found = dict(_entries(loaded, "", DEPTH))
    if entry is not None:
        if entry not in found:
            raise DataError(
                f"{where}: no entry {entry!r} with weights; it has {_listed(found)}. Correct "
                "squeeze.imported.entry."
            )
        return found[entry], entry, _others(found, entry)
    if "" in found or not found:
        return found.get("", loaded), "", ()
    plain = [path for path in found if not AVERAGE.search(path)] or list(found)
    preferred = [path for name in PREFERRED for path in plain if path.rpartition(".")[2] == name]
    chosen = min(preferred or plain, key=lambda path: path.count("."))
    if len(plain) > 1 and not preferred:
        raise DataError(
            f"{where}: it has weights under {_listed(found)}. Set squeeze.imported.entry to the "
            "one to use."
        )
    return found[chosen], chosen, _others(found, chosen)


def check_tensors(state: Any, *, where: str, entry: str = "") -> dict[str, Tensor]:
    """Return a state dict by name, floating tensors as float32.

    Raises:
        DataError: it is none, or a value is not a tensor.
    """
    if (pickled := origin(state)) is not None:
        raise DataError(
            f"{where}: a pickled {pickled}, expected a state dict of tensors by name. Load it with "
            "the program that wrote it, and save model.state_dict()."
        )
    if not isinstance(state, Mapping) or not state:
        raise DataError(
            f"{where}: a {type(state).__name__}, expected a state dict of tensors by name. "
            "Save model.state_dict()."
        )
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            kind = origin(value) or type(value).__name__
            raise DataError(
                f"{where}: {str(key)!r} is a {kind}, expected a tensor. Save only the weights, or "
                f"save them under one of the keys {', '.join(PREFERRED)}."
            )
        tensors[str(key)] = value.float() if value.is_floating_point() else value
    return tensors


def names_in_network(
    names: Iterable[str],
    expected: Collection[str] = (),
    *,
    head: str | None = None,
    maps: Sequence[KeyMap] = (),
) -> Names:
    """Return the name of every tensor in a network.

    Prefixes of wrappers are removed always; those of owners, and names of other programs, only
    where they lead to names that the network has.

    Args:
        names: of the tensors in a file.
        expected: those of the network; (): not known.
        head: dotted name of the network's head.
        maps: tables of names of other programs.
    """
    known = set(expected)
    leftovers, statistics, renamed = list[str](), list[str](), dict[str, str]()
    for name in names:
        if LEFTOVER.search(name):
            leftovers.append(name)
        elif CLASS_STATISTICS.search(name):
            statistics.append(name)
        elif not COMPUTED.search(name):
            renamed[name] = _renamed(name, known, head, maps)
    if len(set(renamed.values())) < len(renamed):  # two became one: keep the names of the file
        renamed = {name: strip_prefixes(name) for name in renamed}
    return Names(renamed, tuple(leftovers), tuple(statistics))


def strip_prefixes(name: str) -> str:
    """Return the name of a tensor without the prefixes that trainers add."""
    return list(_stripped(name, PREFIXES))[-1]


def _stripped(name: str, prefixes: tuple[str, ...]) -> Iterator[str]:
    """Yield a name, and what is left of it after each prefix."""
    yield name
    while prefix := next((p for p in prefixes if name.startswith(p)), None):
        name = name.removeprefix(prefix)
        yield name


def _renamed(name: str, known: set[str], head: str | None, maps: Sequence[KeyMap]) -> str:
    """Return the name of a tensor in a network, or a name that it does not have."""
    plain = strip_prefixes(name)
    if not known or plain in known:
        return plain
    candidates: list[str | None] = []
    for inner in _stripped(plain, PREFIXES + OWNERS):
        candidates.append(inner)
        candidates += [pattern.sub(replacement, inner) for pattern, replacement in RENAMED]
        candidates += [table.rename(inner) for table in maps]
        if head is not None and (match := HEADS.match(inner)):
            candidates.append(f"{head}.{match[1]}")
    return next((name for name in candidates if name in known), plain)


def _entries(loaded: Any, path: str, depth: int) -> Iterable[tuple[str, Any]]:
    """Yield the path and the content of every state dict in nested dictionaries."""
    if not isinstance(loaded, Mapping) or origin(loaded) is not None or OTHER.search(path):
        return
    inner = [(key, value) for key, value in loaded.items() if isinstance(value, Mapping)]
    if any(_is_weight(key, value) for key, value in loaded.items()):
        yield path, loaded
    elif depth > 0:
        for key, value in inner:
            yield from _entries(value, f"{path}.{key}" if path else str(key), depth - 1)


def _is_weight(key: Any, value: Any) -> bool:
    return isinstance(key, str) and key.endswith(".weight") and isinstance(value, Tensor)


def _others(found: Mapping[str, Any], chosen: str) -> tuple[str, ...]:
    return tuple(path for path in found if path != chosen)


def _listed(found: Mapping[str, Any]) -> str:
    return ", ".join(path or "the top level" for path in found) or "none"
