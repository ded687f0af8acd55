"""What a piece of code asks of torch, counted: operations, and the bytes they read and write."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Dispatched(TorchDispatchMode):
    """Counts what is dispatched, views apart, and the bytes it reads and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.calls[func.overloadpacket.__name__] += 1
            tensors = {
                id(leaf): leaf
                for leaf in tree_leaves((args, kwargs, made))
                if isinstance(leaf, torch.Tensor)
            }
            self.bytes += sum(t.numel() * t.element_size() for t in tensors.values())
        return made
