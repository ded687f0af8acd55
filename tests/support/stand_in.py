"""A replacement for the recover worker: small real shards, no torch, and faults by order.

Orders are read anew for every attempt from the file that the variable `ORDERS` names, so that a
test can change them while actors run. Each attempt is recorded in the same folder.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain, count
from pathlib import Path

import numpy as np

from distill_core.data.folders import locate
from distill_core.errors import DivergedError
from distill_core.seeds import derive_seed
from distill_core.sharding import ImageId, batches_of
from distill_core.storage.image_shards import ImageRows, encode_images
from distill_core.storage.markers import ShardFacts
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.jobs import Job, Receipt
from tasks.stages.finished import receipt
from tests.support.datasets import data_config
from tests.support.fakes import make_error

ORDERS = "DISTILL_TEST_ORDERS"
NODE = "DISTILL_TEST_NODE"
STAND_IN = "tests.support.stand_in:StandIn"
DEAD = "dead"  # suffix of the note of a death
MEET_SECONDS = 120.0
SICKNESSES = ("raise StorageRefused", "raise MissingDataError")  # of a worker, until it restarts
DEATHS = ("die before", "die between", "die after")  # the data, data and marker, the marker


@dataclass(frozen=True)
class Orders:
    """The faults of attempts, by shard."""

    shards: Mapping[str, Sequence[str]] = field(default_factory=dict)  # a fate per attempt
    seconds: float = 0.0  # that every attempt takes
    rate: float = 0.0  # share of attempts that die at a random point
    seed: int = 0
    sick: float = 0.0  # share of worker processes that cannot reach the store, or lack the data
    data: str = ""  # folder that every attempt reads, as workers of other stages do

    def fate(self, shard: str, attempt: int) -> str:
        """Return what befalls an attempt; the empty string is nothing."""
        fates = self.shards.get(shard, ())
        if attempt < len(fates):
            return fates[attempt]
        rng = random.Random(f"{self.seed} {shard} {attempt}")
        return rng.choice(DEATHS) if rng.random() < self.rate else ""

    def sickness(self, worker: int) -> str:
        """Return what befalls every attempt of a worker process; the empty string is nothing."""
        rng = random.Random(f"{self.seed} worker {worker}")
        return rng.choice(SICKNESSES) if rng.random() < self.sick else ""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a shard, noted when it began."""

    shard: str
    number: int
    pid: int
    split: int
    fate: str
    node: str = ""  # by the variable `NODE` of its raylet


class Notebook:
    """The folder with the orders and the notes, seen by a test and by every worker."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.orders = folder, folder / "orders.json"

    def order(self, orders: Orders) -> None:
        """Replace the orders."""
        partial = self.orders.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(orders)))
        partial.replace(self.orders)

    def enter(self) -> str:
        """Note a new worker process, and return what befalls all its attempts."""
        for number in count():
            with suppress(FileExistsError):
                (self.folder / f"worker-{number}.entered").touch(exist_ok=False)
                return self.read().sickness(number)
        raise AssertionError("there is always a next number")

    def read(self) -> Orders:
        """Return the orders."""
        return Orders(**json.loads(self.orders.read_text()))

    def begin(self, job: Job, sickness: str = "") -> tuple[Orders, Attempt]:
        """Note an attempt, and return it with the orders."""
        orders = self.read()
        note = self.folder / f"{job.shard}-{os.getpid()}.partial"
        for number in count():
            fate = sickness or orders.fate(job.shard, number)
            node = os.environ.get(NODE, "")
            attempt = Attempt(job.shard, number, os.getpid(), job.split, fate, node)
            note.write_text(json.dumps(asdict(attempt)))
            with suppress(FileExistsError):
                os.link(note, self.folder / f"{job.shard}.{number}")
                break
        note.unlink()
        return orders, attempt

    def die(self, attempt: Attempt) -> None:
        """Note a death, and end this process as a failing machine does."""
        (self.folder / f"{attempt.shard}.{attempt.number}.{DEAD}").touch()
        os.kill(os.getpid(), signal.SIGKILL)

    def deaths(self) -> Counter[str]:
        """Return how many attempts ended in which death."""
        dead = [path.name.split(".")[:2] for path in self.folder.glob(f"*.{DEAD}")]
        attempts = self.attempts()
        return Counter(attempts[shard][int(number)].fate for shard, number in dead)

    def wait_for(self, shard: str, *, attempts: int) -> None:
        """Wait until a shard was begun so often; the bound only keeps a broken test from hanging.

        Raises:
            TimeoutError: it was not.
        """
        deadline = time.monotonic() + MEET_SECONDS
        while not (self.folder / f"{shard}.{attempts - 1}").exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{shard}: fewer than {attempts} attempts")
            time.sleep(0.01)

    def attempts(self) -> dict[str, list[Attempt]]:
        """Return the attempts at every shard, in order."""
        paths = [path for path in self.folder.iterdir() if path.suffix[1:].isdecimal()]
        found = [Attempt(**json.loads(path.read_text())) for path in paths]
        shards = sorted({attempt.shard for attempt in found})
        in_order = sorted(found, key=lambda attempt: attempt.number)
        return {shard: [a for a in in_order if a.shard == shard] for shard in shards}

    def forget(self) -> None:
        """Drop the notes."""
        for path in self.folder.iterdir():
            if path != self.orders:
                path.unlink()


class StandIn:
    """Makes image shards whose pixels follow from the names of the images."""

    def __init__(self, *, store: str, **context: object) -> None:
        self._store = store
        self._notebook = Notebook(Path(os.environ[ORDERS]).parent)
        self._sickness = self._notebook.enter()

    def run(self, job: Job) -> Receipt:
        """Make and commit one shard, unless it is ordered otherwise."""
        orders, attempt = self._notebook.begin(job, self._sickness)
        if orders.data:
            locate(data_config(orders.data))
        images = tuple(chain.from_iterable(batches_of(job.payload.groups, job.payload.grids)))
        die = partial(self._notebook.die, attempt)
        match attempt.fate.split():
            case ["die", "before"]:
                die()
            case ["meet", attempts]:
                self._notebook.wait_for(job.shard, attempts=int(attempts))
            case words:
                suffer(words, at_once=-(-len(images) // job.split))
        doom = die if attempt.fate == "die between" else lambda: None
        store = DoomedStore(self._store, die=doom)
        shard_store = ShardStore(store, "recover")
        made = shard_store.marker(job.key)
        time.sleep(0 if made else orders.seconds)
        marker = made or shard_store.commit(
            job.key,
            shard=job.shard,
            files={"parquet": shard_file(images, parts=job.split)},
            facts=ShardFacts(
                rows=len(images),
                classes=len({image.label for image in images}),
                seconds=orders.seconds,
                device="cpu",
            ),
        )
        if attempt.fate in DEATHS:
            die()
        return receipt(marker, won=made is None)


@dataclass(frozen=True)
class DoomedStore(Store):
    """A store whose user may die when the data is there and the marker is not."""

    die: Callable[[], None] = field(kw_only=True)

    def create(self, path: str, data: bytes) -> bool:
        """Create an object, if its user lives that long."""
        self.die()
        return super().create(path, data)


def suffer(fate: Sequence[str], *, at_once: int) -> None:
    """Hang, or raise what is ordered."""
    match fate:
        case ["hang"]:
            threading.Event().wait()
        case ["room", images] if at_once > int(images):
            import torch

            raise torch.OutOfMemoryError(f"CUDA out of memory: {at_once} images.")
        case ["raise", "OSError"]:
            raise OSError("the disk is slow today")
        case ["raise", "DivergedError"]:
            raise DivergedError("loss [nan] is not finite")
        case ["raise", name]:
            raise make_error(name, "a poisoned shard")


def shard_file(images: tuple[ImageId, ...], *, parts: int) -> bytes:
    """Return an image shard, its pixels computed in a number of parts."""
    pixels = np.concatenate(
        [_pixels([images[n] for n in part]) for part in np.array_split(range(len(images)), parts)]
    )
    return encode_images(ImageRows(images, pixels), encoding="png", losses={})


def _pixels(images: Sequence[ImageId]) -> np.ndarray:
    seeds = [derive_seed(0, image.wnid, image.ipc_index) for image in images]
    return np.stack([np.random.default_rng(s).integers(0, 256, (3, 8, 8)) for s in seeds]).astype(
        np.uint8
    )
