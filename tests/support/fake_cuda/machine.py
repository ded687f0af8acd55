"""A machine whose GPU computes no values: torch's fake tensors, and a driver that is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from distill_core.models.moments import _enlarging
from tests.support.fake_cuda import backward
from tests.support.fake_cuda.watch import Watch

MEMORY = 16 << 30  # bytes of the GPU


class FakeCuda(Watch):
    """The GPU: what was waited for, and how steps are recorded on it."""

    def recorder(self) -> type[Any]:
        """Return the class that takes the place of `CudaRecorder`."""
        gpu = self

        class Recorder:
            def __init__(self, device: torch.device) -> None:
                assert device.type == "cuda"

            def rehearse(self, step: Callable[[], Tensor]) -> Tensor:
                return gpu.rehearse(step)

            def record(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
                return gpu.record(step)

        return Recorder

    def rehearse(self, step: Callable[[], Tensor]) -> Tensor:
        """Take a step; see `Recorder`."""
        return step()

    def record(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Return the replay of a step, which must have nothing in it that a graph cannot record."""
        with self.recording():
            values = step()
        return values.clone


@contextmanager
def fake_cuda(answers: Mapping[str, Any] | None = None) -> Iterator[FakeCuda]:
    """Let torch compute shapes, types and devices only, with a device "cuda" beside the CPU.

    Tensors on different devices do not mix, the host has no values to read, and every wait for the
    GPU is noted; one that `waits` does not allow raises an `UnexpectedWait`. Tensors that were made
    outside do not enter.

    Args:
        answers: by site, what the host reads there; elsewhere it reads True, or 1.
    """
    mode, gpu = FakeTensorMode(allow_non_fake_inputs=False), FakeCuda(answers or {})
    _enlarging.cache_clear()  # it keeps tensors
    try:
        with ExitStack() as stack:
            for patched in _patches(mode, gpu):
                stack.enter_context(patched)
            stack.enter_context(mode)
            stack.enter_context(gpu)
            yield gpu
    finally:
        _enlarging.cache_clear()


def _patches(mode: FakeTensorMode, gpu: FakeCuda) -> Iterator[Any]:
    """Yield replacements of what needs values, memory or a driver."""
    frombuffer = torch.frombuffer

    def from_buffer(*args: Any, **kwargs: Any) -> Tensor:
        return mode.from_tensor(frombuffer(*args, **kwargs))

    state = np.zeros(16, np.uint8)
    yield patch.object(torch, "frombuffer", from_buffer)
    yield patch.object(Tensor, "numpy", _numpy)
    yield patch.object(FakeTensor, "__deepcopy__", _copied, create=True)
    yield patch.object(nn.Module, "_apply", _apply)
    yield patch.object(torch.autograd, "backward", backward.backward)
    yield patch.object(torch.autograd, "grad", backward.grad)
    yield patch("distill_core.recover.cudagraph.CudaRecorder", gpu.recorder())
    for module in ("distill_core.training.checkpoint", "distill_core.models.files"):
        yield patch(f"{module}.save", _save)
    yield patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    yield patch("torch.cuda.is_bf16_supported", lambda *_: True)
    yield patch("torch.cuda.mem_get_info", lambda *_: (MEMORY, MEMORY))
    yield patch("torch.cuda.get_rng_state", lambda *_: torch.from_numpy(state))
    yield patch("torch.cuda.set_rng_state", lambda *_: None)


def _numpy(tensor: Tensor) -> np.ndarray:
    """Return zeros, under the conditions of `Tensor.numpy`."""
    if not isinstance(tensor, FakeTensor):
        return np.asarray(tensor.tolist())
    if tensor.device.type != "cpu":
        raise TypeError(f"can't convert {tensor.device} device type tensor to numpy.")
    if tensor.requires_grad:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
    if tensor.dtype == torch.bfloat16:
        raise TypeError("Got unsupported ScalarType BFloat16")
    return np.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))


def _copied(tensor: FakeTensor, memo: dict[int, Any]) -> Tensor:
    """Return a copy of a tensor that is no parameter; torch's own looks at its memory."""
    memo[id(tensor)] = tensor.detach().clone()
    return memo[id(tensor)]


def _apply(
    module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True
) -> nn.Module:
    """Do what `Module._apply` does, with new parameters: fake ones cannot be changed in place."""
    for child in module.children():
        child._apply(function)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                moved = nn.Parameter(function(parameter), parameter.requires_grad)
            module._parameters[name] = moved
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = function(buffer)
    return module


def _save(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the file of tensors that are zero; they have to be on the host."""
    for name, tensor in tensors.items():
        assert tensor.device.type == "cpu", f"{name} is on {tensor.device}"
        assert tensor.is_contiguous(), f"{name} is not contiguous"
    arrays = {
        name: np.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))
        for name, tensor in tensors.items()
    }
    return safetensors.numpy.save(arrays, metadata=metadata)
