"""Gradients of fake tensors, node by node.

torch's engine asks the driver about the streams of a graph before it computes anything, and a
machine without a driver has no answer. The nodes themselves run anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

Leaf = Callable[[Tensor, Tensor], None]  # takes a leaf and one of its gradients


def backward(loss: Tensor, *_: object, **__: object) -> None:
    """Do what `torch.autograd.backward` does for one scalar without options."""

    def accumulate(leaf: Tensor, gradient: Tensor) -> None:
        leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient

    with torch.no_grad():
        _run(loss, accumulate)


def grad(loss: Tensor, inputs: Sequence[Tensor], **_: object) -> tuple[Tensor, ...]:
    """Do what `torch.autograd.grad` does for one scalar and leaves that it depends on."""
    gradients: dict[int, Tensor] = {}

    def keep(leaf: Tensor, gradient: Tensor) -> None:
        before = gradients.get(id(leaf))
        gradients[id(leaf)] = gradient if before is None else before + gradient

    with torch.no_grad():
        _run(loss, keep)
    return tuple(gradients[id(leaf)] for leaf in inputs)


def _run(loss: Tensor, leaf: Leaf) -> None:
    root: Any = loss.grad_fn
    nodes = list(_nodes(root))  # which keeps them: their Python objects are their identities
    waiting = Counter(id(to) for node in nodes for to, _ in _edges(node))
    given: dict[int, list[Tensor | None]] = {
        id(node): [None] * len(node._input_metadata) for node in nodes
    }
    given[id(root)][loss.output_nr] = torch.ones_like(loss)
    ready = [root]
    while ready:
        node = ready.pop()
        results = _gradients(node, given.pop(id(node)), leaf)
        for (to, place), result in zip(_edges(node), results, strict=True):
            if result is not None:
                before = given[id(to)][place]
                result = _checked(node, result, to._input_metadata[place])
                given[id(to)][place] = result if before is None else before + result
            waiting[id(to)] -= 1
            if not waiting[id(to)]:
                ready.append(to)


def _nodes(root: Any) -> Iterator[Any]:
    """Yield every node that a root depends on, once."""
    known, todo = {id(root)}, [root]
    while todo:
        node = todo.pop()
        yield node
        for to, _ in _edges(node):
            if id(to) not in known:
                known.add(id(to))
                todo.append(to)


def _edges(node: Any) -> list[tuple[Any, int]]:
    return [(to, place) for to, place in node.next_functions if to is not None]


def _gradients(node: Any, given: list[Tensor | None], leaf: Leaf) -> list[Tensor | None]:
    """Return the gradients that a node passes on, by edge."""
    if hasattr(node, "variable"):
        (gradient,) = given
        if gradient is not None:
            leaf(node.variable, gradient.detach())
        return []
    if not hasattr(node, "_forward_cls"):
        results = node(*given)
        results = results if isinstance(results, tuple) else (results,)
        edges = zip(node.next_functions, results, strict=True)
        return [result for (to, _), result in edges if to is not None]
    # A function of the product: it gets zeros where no gradient arrives.
    filled = [
        torch.zeros(meta.shape, dtype=meta.dtype, device=meta.device) if one is None else one
        for one, meta in zip(given, node._input_metadata, strict=True)
    ]
    results = node.apply(*filled)
    results = results if isinstance(results, tuple) else (results,)
    return [r for r, needed in zip(results, node.needs_input_grad, strict=True) if needed]


def _checked(node: Any, gradient: Tensor, meta: Any) -> Tensor:
    """Return a gradient in the shape and the type of its tensor, as the engine does.

    Raises:
        RuntimeError: it is on another device, or of a shape that does not reduce to the tensor's.
    """
    if gradient.device != meta.device:
        raise RuntimeError(
            f"{node.name()} returned a gradient on {gradient.device}, expected {meta.device}."
        )
    return gradient.sum_to_size(tuple(meta.shape)).to(meta.dtype)
