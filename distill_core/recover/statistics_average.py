"""A batch's statistics, averaged over its steps, where the gradient is that of the step alone.

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
class Memory:
    """Running averages of what one batch did to its teachers.

    Source: arXiv:2311.17950 (G-VBSM), section 3.3, score distillation form, and its published
    code. Differs from the code: an average begins with the first statistics, not with zero, and
    belongs to one batch, where the code carries it on to the next.
    """

    decay: float
    averages: dict[Hashable, Tensor] = field(default_factory=dict)

    def of(self, said: TeacherOutput, teacher: Hashable) -> TeacherOutput:
        """Return what a teacher says with averaged statistics, and go on averaging."""

        def averaged(kind: str, layer: int, seen: MeanVar) -> MeanVar:
            mean, var = seen
            name = (teacher, kind, layer)
            return self._average((*name, "mean"), mean), self._average((*name, "var"), var)

        def layer_of(number: int, seen: LayerStatistics) -> LayerStatistics:
            mean, var = averaged("batch_norms", number, (seen.mean, seen.var))
            return replace(seen, mean=mean, var=var)

        inputs = said.convolutions
        return replace(
            said,
            statistics=tuple(layer_of(n, seen) for n, seen in enumerate(said.statistics)),
            convolutions=Probed(
                {n: averaged("channels", n, seen) for n, seen in inputs.channels.items()},
                {n: averaged("patches", n, seen) for n, seen in inputs.patches.items()},
                inputs.features,
            ),
        )

    def _average(self, name: Hashable, now: Tensor) -> Tensor:
        seen = now.detach()
        if name not in self.averages:
            self.averages[name] = seen.clone()
        # In place: a recorded step looks for the average where it was when it was recorded.
        average = self.averages[name].copy_(seen.lerp(self.averages[name], self.decay))
        return average + (now - seen)
