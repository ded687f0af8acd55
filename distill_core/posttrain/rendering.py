"""The views of an epoch, batch by batch: every image is rendered once.

Axes: N images, B in a part, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from distill_core.labels.views import LabelView, Renderer
from distill_core.transforms.mixing import has_partners

ROOM = 256 << 20  # bytes that the unmixed views of an epoch may take


@dataclass
class EpochRenderer:
    """Renders epochs of one set of images; keeps its memory from one epoch to the next."""

    pixels: Tensor  # (N, 3, S, S) uint8
    renderer: Renderer
    room: int = ROOM
    _views: Tensor | None = field(default=None, init=False)

    def parts(self, parts: Sequence[np.ndarray], drawn: LabelView) -> Generator[Tensor, None, None]:
        """Yield what `Renderer.render` shows of each part, in order; close it to give up early.

        A partner is shown under its own draw, so it looks as in its own place in the epoch: where
        all views fit into `room`, each is rendered once. Else every part renders its own.

        Args:
            parts: rows of images, (B,) each.
            drawn: draws for all N images.
        """
        if has_partners(self.renderer.kind) and len(parts) > 1:
            rows = self.renderer.wanted(np.concatenate(parts), drawn)
            if self.renderer.size(self.pixels, len(rows)) <= self.room:
                rendered = self.renderer.render_unmixed(self.pixels, rows, drawn, into=self._views)
                self._views = rendered.views
                yield from (self.renderer.mix_rendered(rendered, part, drawn) for part in parts)
                return
        yield from (self.renderer.render(self.pixels, part, drawn) for part in parts)
