"""The memory layout in which weight gradients are computed.

Convolutions are fastest with the channels last, so that is the layout everywhere, except where a
kernel of oneDNN would write past the end of its buffer.

Source: measured with torch 2.15, for every value of ``ONEDNN_MAX_CPU_ISA``. With AVX2 and without
AVX-512 (limits AVX2, AVX2_VNNI and AVX2_VNNI_2), the float32 weight gradient of a 1x1 convolution
with a stride and 1 to 7 input channels corrupts the heap if the channels are last. The kernel is
``jit_1x1:avx2``, which oneDNN chooses where the stride divides the side and there is no padding.
The same gradient is right with 8 channels or more, with stride 1, with larger kernels, in bfloat16,
in float64, and in contiguous tensors. Outputs and input gradients are always right.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from distill_core.config.fields import Precision

CONVOLUTION_DTYPES: Mapping[Precision, torch.dtype] = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
}
VECTOR = 8  # float32 numbers in a vector of AVX2; fewer input channels are padded, and overrun


def training_layout(
    model: nn.Module, *, device: str | torch.device, dtype: torch.dtype
) -> torch.memory_format:
    """Return the layout that a network and its input must have where weights get gradients.

    The answer depends on the network and not on the CPU's instruction set, so all machines of a run
    compute in one layout. A network without a narrow strided shortcut keeps the channels last; that
    is every network of `build` with 8 channels or more.

    Args:
        model: the network; its modules are looked at, not its name.
        device: where it is trained.
        dtype: of its convolutions, see `CONVOLUTION_DTYPES`.
    """
    if torch.device(device).type != "cpu" or dtype != torch.float32:
        return torch.channels_last
    overruns = any(overruns_in_channels_last(module) for module in model.modules())
    return torch.contiguous_format if overruns else torch.channels_last


def overruns_in_channels_last(module: nn.Module) -> bool:
    """Return whether the float32 weight gradient of a module may overrun its buffer on a CPU."""
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels // module.groups < VECTOR
    )
