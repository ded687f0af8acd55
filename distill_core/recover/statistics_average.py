"""The statistics of a batch, averaged over its steps; the gradient is that of the step alone.

Axes: ch channels, P patches.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace

from torch import Tensor

from distill_core.models.batch_norms import LayerStatistics
from distill_core.models.convolutions import Probed
from distill_core.models.moments import MeanVar
from distill_core.models.teacher import TeacherOutput


@dataclass
class StatisticsAverage:
    """Running averages of the statistics of one batch under its teachers.

    Source: arXiv:2311.17950 (G-VBSM), section 3.3, score distillation form, and its published
    code. Differs from the code: an average begins with the first statistics, not with zero, and
    belongs to one batch, where the code carries it on to the next.
    """

    decay: float  # share of the old average that is kept in a step
    averages: dict[Hashable, Tensor] = field(default_factory=dict)  # by teacher, kind and layer

    def update(self, output: TeacherOutput, teacher: Hashable) -> TeacherOutput:
        """Add the statistics of a step, and return the output with averaged ones.

        Args:
            output: of one step.
            teacher: identifies the network.
        """

        def averaged(kind: str, layer: int, current: MeanVar) -> MeanVar:
            mean, var = current
            name = (teacher, kind, layer)
            return self._average((*name, "mean"), mean), self._average((*name, "var"), var)

        def layer_of(number: int, layer: LayerStatistics) -> LayerStatistics:
            mean, var = averaged("batch_norms", number, (layer.mean, layer.var))
            return replace(layer, mean=mean, var=var)

        inputs = output.convolutions
        return replace(
            output,
            statistics=tuple(layer_of(n, layer) for n, layer in enumerate(output.statistics)),
            convolutions=Probed(
                {n: averaged("channels", n, moments) for n, moments in inputs.channels.items()},
                {n: averaged("patches", n, moments) for n, moments in inputs.patches.items()},
                inputs.features,
            ),
        )

    def _average(self, name: Hashable, value: Tensor) -> Tensor:
        current = value.detach()
        if name not in self.averages:
            self.averages[name] = current.clone()
        # In place: a recorded step reads the average where it was when it was recorded.
        average = self.averages[name].copy_(current.lerp(self.averages[name], self.decay))
        return average + (value - current)
