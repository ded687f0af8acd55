"""The type of a table of names, and how a table is put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

Modules = Mapping[str, str]  # dotted name of a module, or of a tensor, in two programs


@dataclass(frozen=True)
class KeyMap:
    """The names of a network in another program, and those in the network that is built here.

    Both compute the same function; only the names differ, and the shapes of some tensors.
    """

    program: str  # that uses the other names
    architecture: str  # name of the network there
    modules: Modules  # there -> here; the names of tensors end alike
    reshaped: tuple[str, ...] = ()  # tensors here that have other axes there, in the same order

    def rename(self, name: str) -> str | None:
        """Return the name of a tensor here; None: the table does not have it."""
        module, rest = name, ""
        while module:
            if (ours := self.modules.get(module)) is not None:
                return ours + rest
            module, _, last = module.rpartition(".")
            rest = f".{last}{rest}"
        return None

    def inverse(self, program: str, architecture: str) -> KeyMap:
        """Return the table for the same two networks with their roles exchanged.

        Args:
            program: that uses the names on the right of this table.
            architecture: name of the network there.
        """
        table = KeyMap(program, architecture, {ours: name for name, ours in self.modules.items()})
        return replace(table, reshaped=tuple(table.rename(name) or name for name in self.reshaped))


def inside(blocks: Iterable[tuple[str, str]], names: Modules) -> dict[str, str]:
    """Return the names of the modules inside equal blocks.

    Args:
        blocks: name of each block there, and here.
        names: of the modules inside a block, there and here.
    """
    return {
        f"{theirs}.{inner}": f"{ours}.{name}"
        for theirs, ours in blocks
        for inner, name in names.items()
    }


def numbered(depths: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield the stage and the place of every block, and its number over all stages, from 0."""
    number = 0
    for stage, depth in enumerate(depths):
        for place in range(depth):
            yield stage, place, number
            number += 1
