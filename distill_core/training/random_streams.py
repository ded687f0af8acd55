"""The random states from which the parts of a batch draw, for dropout and its kin."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

State = Mapping[str, str]  # by type of device: the state of torch's default generator, base64


class RandomStreams:
    """One random state per part of a batch that a process computes.

    A process with a single part draws from torch's default generators. With several, each part has
    its own state, as if it had a process of its own.

    Args:
        device: that computes.
        count: parts of this process.
    """

    def __init__(self, device: str, count: int) -> None:
        self._device, self._count = torch.device(device), count
        self._held: list[State] = []  # by part; of a single one: none

    def seed(self, seeds: Sequence[int]) -> None:
        """Start the stream of each part from a seed."""
        self._held = []
        for seed in seeds:
            torch.manual_seed(seed)
            if self._count > 1:
                self._held.append(self._read())

    def restore(self, states: Sequence[State]) -> bool:
        """Continue each stream from a state of `states`; return False if they do not fit."""
        kinds = {"cpu", self._device.type}
        if len(states) != self._count or any(state.keys() != kinds for state in states):
            return False
        self._held = list(states) if self._count > 1 else []
        if self._count == 1:
            self._write(states[0])
        return True

    def states(self) -> list[State]:
        """Return the state of each part."""
        return list(self._held) if self._count > 1 else [self._read()]

    @contextmanager
    def of(self, part: int) -> Iterator[None]:
        """Draw from the stream of a part in the block."""
        if self._count > 1:
            self._write(self._held[part])
        yield
        if self._count > 1:
            self._held[part] = self._read()

    def _read(self) -> State:
        states = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self._device)
        return {kind: base64.b64encode(s.numpy().tobytes()).decode() for kind, s in states.items()}

    def _write(self, state: State) -> None:
        states = {
            kind: torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
            for kind, text in state.items()
        }
        torch.set_rng_state(states["cpu"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"], self._device)
