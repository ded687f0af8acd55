"""The places where the host waits for the GPU, seen from below: every operation passes here.

The host waits when it reads a value, when the shape of a result depends on values, when it copies
from the GPU, and when it copies to it without `non_blocking`. Positions on the host that index a
tensor on the GPU are such a copy, which no line of the program shows.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import distill_core
from tests.support.fake_cuda.kernels import MISSING, SHAPED_BY_VALUES, indexed
from tests.support.fake_cuda.waits import ALLOWED, Kind, Wait

aten = torch.ops.aten
INNER = re.compile(r"\.<\w+>")  # parts of a function that have no name of their own
PRODUCT = str(Path(distill_core.__file__).parent)
OUTSIDE = "outside the product"
READS = {aten._local_scalar_dense.default, aten.equal.default}
CHECKED = {aten._linalg_eigh.default}  # kernels that report failure to the host
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
WAITING = {*READS, *CHECKED, *INDEXED, *SHAPED_BY_VALUES}  # where there is a tensor on the GPU


class UnexpectedWait(AssertionError):
    """The host waits for the GPU where it should not."""


class Watch(TorchDispatchMode):
    """Notes and answers every wait.

    Args:
        answers: by site, what the host reads there; elsewhere it reads True, or 1.
    """

    def __init__(self, answers: Mapping[str, Any]) -> None:
        super().__init__()
        self.answers = answers
        self.waits: list[Wait] = []
        self._recording = False

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Refuse all that a CUDA graph cannot record: waits, and copies between host and GPU."""
        self._recording = True
        try:
            yield
        finally:
            self._recording = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = _kind(func, args, kwargs)
        if kind is not None:
            self._note(kind, func)
        elif self._recording and func in COPIES and len(set(_ends(func, args, kwargs))) > 1:
            raise UnexpectedWait(f"{func} at {site()}: a CUDA graph cannot record a copy.")
        if func in READS and getattr(args[0], "constant", None) is None:
            return self._answer(func, args[0])
        if func in INDEXED and _has_mask(args[1]):
            return indexed(*args) if func is aten.index.Tensor else args[0]
        replaced = MISSING.get(func) or SHAPED_BY_VALUES.get(func)
        return func(*args, **kwargs) if replaced is None else replaced(*args, **kwargs)

    def _note(self, kind: Kind, func: Any) -> None:
        wait = Wait(site(), kind)
        if wait.site == OUTSIDE:  # what a test does itself
            return
        if self._recording:
            raise UnexpectedWait(f"{func} at {wait.site}: a CUDA graph cannot record a {kind}.")
        if wait not in ALLOWED:
            raise UnexpectedWait(
                f"{wait.site} waits for the GPU ({kind}, by {func}), and is not among the waits "
                "that are allowed. Remove it, or add it with its reason."
            )
        self.waits.append(wait)

    def _answer(self, func: Any, read: Tensor) -> Any:
        if (place := site()) in self.answers:
            return self.answers[place]
        if func is aten.equal.default or read.dtype == torch.bool:
            return True
        return 1.0 if read.is_floating_point() else 1


def site() -> str:
    """Return the innermost function of the product that is running, as file and name."""
    frame: Any = sys._getframe()
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(PRODUCT):
            file = Path(name).relative_to(PRODUCT).as_posix()
            return f"{file}:{INNER.sub('', frame.f_code.co_qualname)}"
        frame = frame.f_back
    return OUTSIDE


def _kind(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Kind | None:
    """Return how the host waits for the GPU in an operation; None: not at all."""
    if func in COPIES:
        return _kind_of_copy(func, args, kwargs)
    if func not in WAITING:
        return None
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    if all(one.device.type != "cuda" for one in tensors):
        return None
    if func in INDEXED:
        if _has_mask(args[1]):
            return "shape"
        on_host = any(index is not None and index.device.type == "cpu" for index in args[1])
        return "upload" if on_host else None
    if func in SHAPED_BY_VALUES:
        return "shape"
    return "check" if func in CHECKED else "read" if func in READS else None


def _kind_of_copy(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Kind | None:
    source, target = _ends(func, args, kwargs)
    if source == target:
        return None
    if target != "cuda":
        return "download"
    place = {aten.copy_.default: args[2:3]}.get(func, ())
    freely = kwargs.get("non_blocking", place[0] if place else False)
    return None if freely else "upload"


def _ends(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, str]:
    """Return the kinds of device that a copy leads from and to."""
    if func is aten.copy_.default:
        return args[1].device.type, args[0].device.type
    device = kwargs.get("device")
    return args[0].device.type, args[0].device.type if device is None else device.type


def _has_mask(indices: Sequence[Tensor | None]) -> bool:
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)
