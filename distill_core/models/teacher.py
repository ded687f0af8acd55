"""A frozen teacher: features, logits and, on request, statistics of its activations.

Axes: B images, S side, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn

from distill_core.config.fields import Precision
from distill_core.models.batch_norms import (
    LayerStatistics,
    StatisticsBatchNorm,
    measure_batch_norms,
)
from distill_core.models.build import split_head
from distill_core.models.convolutions import Probe, Probed, measure_convolutions
from distill_core.models.layout import CONVOLUTION_DTYPES
from distill_core.models.spec import TeacherSpec
from distill_core.models.timm_networks import split_layers

SHAPES = 64  # combinations of network, resolution and group sizes that a process may compile
# Images per forward pass over many images. Part of the numerics on a CPU: convolutions round
# differently at another batch size, and no result may depend on a memory setting.
FORWARD_BATCH = 100


@dataclass(frozen=True)
class TeacherOutput:
    """The outputs of a teacher for a batch, in float32 (float64 under that precision)."""

    features: Tensor  # (B, D), the input of the head
    logits: Tensor  # (B, C)
    statistics: tuple[LayerStatistics, ...]  # in module registration order; () unless requested
    convolutions: Probed = field(default_factory=Probed)  # the measurements of a probe


class FrozenTeacher(nn.Module):
    """A network in eval mode without parameter gradients; differentiable in its input, once.

    Under ``bfloat16`` the convolutions and the layers between them run in bfloat16; batch norm
    arithmetic, statistics, features and head stay in float32.

    Args:
        model: a network of `distill_core.models.build` with its weights; it is modified.
        spec: its description.
        digest: sha256 of the file the weights came from, 64 hex digits.
        precision: of the convolutions.
    """

    def __init__(
        self, model: nn.Module, spec: TeacherSpec, *, digest: str, precision: Precision = "float32"
    ) -> None:
        super().__init__()
        wide = torch.float64 if precision == "float64" else torch.float32
        self.spec, self.digest = spec, digest
        self.input_dtype = CONVOLUTION_DTYPES[precision]
        self.backbone, self.head = split_head(model.to(wide))
        split_layers(self.backbone)
        self.tape, self.num_statistics = measure_batch_norms(self.backbone)
        self.inputs, self.num_convolutions = measure_convolutions(self.backbone)
        for module in self.backbone.modules():
            if not isinstance(module, StatisticsBatchNorm):
                _cast_own_tensors(module, self.input_dtype)
        self.lay_out(torch.channels_last)
        self.requires_grad_(False).eval()

    def lay_out(self, layout: torch.memory_format) -> None:
        """Set the memory layout of the weights and of all that is computed from an input."""
        self.layout = layout
        self.backbone.to(memory_format=layout)

    def forward(
        self,
        x: Tensor,
        *,
        statistics: bool = False,
        pooled: bool = False,
        probe: Probe | None = None,
    ) -> TeacherOutput:
        """Return the outputs for normalised images (B, 3, S, S) of any floating dtype.

        Args:
            x: the images; on the device of the teacher.
            statistics: whether to measure the input of every batch norm as well.
            pooled: normalise with the statistics of this batch instead of the running ones.
            probe: what to measure at the inputs of the convolutions.
        """
        with self.tape.pool() if pooled else nullcontext():
            (output,) = self.of_groups(x, [len(x)], statistics=statistics, probe=probe)
        return output

    def of_groups(
        self,
        x: Tensor,
        sizes: Sequence[int],
        *,
        statistics: bool = False,
        probe: Probe | None = None,
        skipped: Sequence[frozenset[int]] = (),
        compiled: bool = False,
    ) -> tuple[TeacherOutput, ...]:
        """Return the outputs for several groups of images, each as if it were evaluated alone.

        Args:
            x: normalised images (B, 3, S, S), group by group.
            sizes: images of each group; they sum to B.
            statistics: whether to measure the input of every batch norm as well, by group.
            probe: what to measure at the inputs of the convolutions, by group.
            skipped: by group, the convolutions that are not measured; none if empty.
            compiled: use `torch.compile`, once for every shape; changes the rounding.
        """
        forward = _compiled() if compiled else FrozenTeacher._forward
        return forward(self, x, sizes, statistics, probe, skipped)

    def _forward(
        self,
        x: Tensor,
        sizes: Sequence[int],
        statistics: bool,
        probe: Probe | None,
        skipped: Sequence[frozenset[int]],
    ) -> tuple[TeacherOutput, ...]:
        x = x.to(self.input_dtype, memory_format=self.layout)
        with (
            self.tape.record(sizes) if statistics else nullcontext(),
            nullcontext() if probe is None else self.inputs.measure(probe, sizes, skipped),
        ):
            features = self.backbone(x).to(self.head.weight.dtype)
        measured = (statistics and self.tape.take()) or ((),) * len(sizes)  # no batch norm: empty
        probed = (Probed(),) * len(sizes) if probe is None else self.inputs.take()
        parts = torch.split(features, list(sizes))
        return tuple(
            TeacherOutput(part, self.head(part), layers, inputs)
            for part, layers, inputs in zip(parts, measured, probed, strict=True)
        )


def _cast_own_tensors(module: nn.Module, dtype: torch.dtype) -> None:
    """Convert the floating parameters and buffers of one layer, in place."""
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


@cache
def _compiled() -> Callable[..., tuple[TeacherOutput, ...]]:
    """Return the compiled pass, which serves all teachers because weights are its arguments.

    It is compiled once for every network, resolution and list of sizes and never falls back, so the
    rounding of a step does not depend on earlier compilations of the process.
    """
    torch._dynamo.config.recompile_limit = max(SHAPES, torch._dynamo.config.recompile_limit)
    compiled: Callable[..., tuple[TeacherOutput, ...]] = torch.compile(
        FrozenTeacher._forward, dynamic=False, fullgraph=True
    )
    return compiled
