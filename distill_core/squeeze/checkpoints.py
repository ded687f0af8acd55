"""The checkpoints of a teacher in training: after every epoch, and between them.

A state inside an epoch also has the batches that are done, the sum of their losses and the random
states of all parts of a batch, so that the rest of the epoch is that of an undisturbed training.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from distill_core.seeds import derive_seed
from distill_core.squeeze.result import Point
from distill_core.training.checkpoint import pack_state, restore
from distill_core.training.epochs import BatchParts, EpochProgress, checked_loss
from distill_core.training.intervals import SaveTimer
from distill_core.training.random_streams import State
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.supervised import TrainState


@dataclass(frozen=True)
class _Facts:
    """The facts in a checkpoint."""

    curve: list[Point]  # one point per whole epoch
    done: EpochProgress  # of the epoch after those
    random: list[State]  # by part of a batch; none at the end of an epoch

    @classmethod
    def read(cls, meta: dict[str, Any]) -> _Facts:
        """Read the facts back; those of older versions are of whole epochs."""
        done = EpochProgress(meta.get("batches", 0), meta.get("losses", 0.0))
        return cls(list(meta["curve"]), done, list(meta.get("random", ())))


class TeacherCheckpoints:
    """Saves and restores the state of one training; all its processes call it alike.

    Args:
        train_state: the training.
        parts: of each batch, that this process computes.
        runtime: its checkpoints, its interval between them, and its progress.
    """

    def __init__(
        self, train_state: TrainState, parts: BatchParts, runtime: TrainingRuntime
    ) -> None:
        self.curve: list[Point] = []  # one per whole epoch; the training adds to it
        self._train_state, self._parts, self._runtime = train_state, parts, runtime
        self._timer = SaveTimer(runtime.interval, runtime.world, runtime.clock)
        self._random: list[State] = []

    def resume(self) -> EpochProgress:
        """Restore the furthest checkpoint; return what is done of the epoch after `curve`."""
        restored = restore(
            self._runtime.checkpoints,
            self._train_state.model,
            self._train_state.optimizer,
            read=_Facts.read,
            notice=self._runtime.notice,
        )
        if restored is None:
            return EpochProgress()
        facts = restored[1]
        self.curve, self._random = facts.curve, facts.random
        return facts.done

    def start_epoch(self, done: EpochProgress) -> None:
        """Start the random states of an epoch, or continue those of one that is partly done.

        States of another kind of device or number of parts cannot be continued: the rest of that
        epoch draws from seeds of its own.
        """
        mine, epoch = self._parts.mine, len(self.curve)
        states = self._random[mine.start : mine.stop]
        if done.batches and self._parts.streams.restore(states):
            return
        place = (epoch, done.batches) if done.batches else (epoch,)
        seed, streams = self._train_state.run.seed, self._parts.streams
        streams.seed([derive_seed(seed, "squeeze", "dropout", *place, part) for part in mine])

    def after_step(self, batches: int, of: int, losses: Tensor) -> None:
        """Report a step, and save the state if the interval has passed.

        Args:
            batches: that are done, in this epoch.
            of: batches of an epoch.
            losses: sum of the losses of those that are done.

        Raises:
            DivergedError: the state is due, and the losses are not finite.
        """
        epoch, runtime = len(self.curve), self._runtime
        runtime.progress(epoch * of + batches, of * self._train_state.training.epochs)
        if runtime.checkpoints is None or batches == of or not self._timer.is_due():
            return
        random = runtime.world.gather(self._parts.streams.states())
        facts = {"batches": batches, "losses": checked_loss(losses, epoch), "random": random}
        self._save(batches, facts)

    def save_epoch(self) -> None:
        """Save the state after a whole epoch."""
        if self._runtime.checkpoints is not None:
            self._save(0, {})

    def _save(self, batches: int, facts: dict[str, Any]) -> None:
        assert self._runtime.checkpoints is not None
        model, optimizer = self._train_state.model, self._train_state.optimizer
        state = partial(pack_state, model, optimizer, meta={"curve": self.curve} | facts)
        self._runtime.checkpoints.save(len(self.curve), state, batches=batches)
        self._timer.restart()
