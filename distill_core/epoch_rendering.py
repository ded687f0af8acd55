"""The views of an epoch, batch by batch: every image is rendered once, while a student computes.

Axes: N images, B in a part, S side in pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from distill_core.label_views import LabelView, Renderer
from distill_core.mixing import has_partners

ROOM = 256 << 20  # bytes that the unmixed views of an epoch may take
AHEAD = 2  # parts that are rendered before they are asked for


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
                shown = self.renderer.show(self.pixels, rows, drawn, into=self._views)
                self._views = shown.views
                yield from (self.renderer.mixed(shown, part, drawn) for part in parts)
                return
        yield from (self.renderer.render(self.pixels, part, drawn) for part in parts)


def ahead(views: Iterator[Tensor], count: int = AHEAD) -> Generator[Tensor, None, None]:
    """Yield the same views, which one thread renders up to `count` parts ahead.

    What it raises reaches the caller in its place; the thread ends with the iteration, also with
    one that is closed early.
    """
    threads = torch.get_num_threads()  # a new thread would take all cores
    with ThreadPoolExecutor(1, "views", torch.set_num_threads, (threads,)) as thread:
        waiting = deque(thread.submit(next, views, None) for _ in range(count))
        try:
            while (shown := waiting.popleft().result()) is not None:
                waiting.append(thread.submit(next, views, None))
                yield shown
        finally:
            for part in waiting:
                part.cancel()
