"""Two ways of doing the same, compared in interleaved pairs: one clock, one table.

On a CPU the clock is CPU time of one thread, on a GPU the time between two events of its stream.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from benchmarks.hardware import hardware

Way = Callable[[], object]
Clock = Callable[[Way], float]  # seconds of one call
WARM_UP = 2  # pairs that are not counted
AA_LIMIT = 0.03
HEADER = ("| what | median | 5 % | 95 % |", "| --- | --- | --- | --- |")


@dataclass(frozen=True)
class Ratios:
    """How often the time of `other` fits into that of `one`, pair by pair."""

    what: str
    values: Sequence[float]
    seconds: float  # of `other`, median

    @property
    def median(self) -> float:
        """Return the middle ratio."""
        return statistics.median(self.values)

    def row(self) -> str:
        """Return a table row: median, 5 % and 95 %."""
        cuts = statistics.quantiles(self.values, n=20, method="inclusive")
        return f"| {self.what} | {self.median:.2f} | {cuts[0]:.2f} | {cuts[-1]:.2f} |"


def cpu_time(way: Way) -> float:
    """Return the CPU seconds of one call, over all threads of this process."""
    start = time.process_time()
    way()
    return time.process_time() - start


def family_time(way: Way) -> float:
    """Return the CPU seconds of one call, over its child processes too where it ends them."""
    start = sum(os.times()[:4])
    way()
    return sum(os.times()[:4]) - start


def wall_time(way: Way) -> float:
    """Return how many seconds pass during one call."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def gpu_time(way: Way) -> float:
    """Return the seconds that the current GPU is at work on one call, waits for the host included.

    Nothing else may be under way on its current stream.
    """
    torch.cuda.synchronize()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    way()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1000


def clock_of(device: str) -> Clock:
    """Return what measures work on a device."""
    return gpu_time if torch.device(device).type == "cuda" else cpu_time


def paired(what: str, one: Way, other: Way, pairs: int, clock: Clock = cpu_time) -> Ratios:
    """Return the time of `one` over that of `other`, in alternating order."""
    ratios, seconds = [], []
    for n in range(pairs + WARM_UP):
        times = {}
        for name, way in ((0, one), (1, other)) if n % 2 else ((1, other), (0, one)):
            times[name] = clock(way)
        ratios.append(times[0] / times[1])
        seconds.append(times[1])
    return Ratios(what, ratios[WARM_UP:], statistics.median(seconds[WARM_UP:]))


def repeated(way: Way, times: int) -> Way:
    """Return a way that goes another several times."""

    def again() -> None:
        for _ in range(times):
            way()

    return way if times == 1 else again


def parser(doc: str | None, **sizes: int) -> argparse.ArgumentParser:
    """Return the options that every comparison has: its sizes, --pairs and --write."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    for option, value in (sizes | {"pairs": 15}).items():
        made.add_argument(f"--{option}", type=int, default=value)
    made.add_argument("--write", action="store_true", help="write benchmarks/results/")
    return made


def conclude(
    title: str,
    name: str,
    noise: Ratios,
    rows: Sequence[Ratios],
    notes: Sequence[str],
    *,
    write: bool,
    device: str = "cpu",
) -> int:
    """Print a table, and write it as a result if asked; return the exit status.

    A run whose comparison of a thing with itself leaves 3 % is rejected: the machine was too noisy.
    """
    on_gpu = torch.device(device).type == "cuda"
    measured = "time between CUDA events" if on_gpu else "CPU time of one thread"
    machine = f"{hardware(device)}, torch {torch.__version__}; {measured}"
    table = [*HEADER, *(ratios.row() for ratios in (noise, *rows))]
    command = " ".join([f"python -m benchmarks.bench_{name.partition('-')[0]}", *sys.argv[1:]])
    head = [f"# {title}", "", f"{machine}, {len(noise.values)} interleaved pairs.", ""]
    text = "\n".join([*head, *table, "", *notes, f"Command: `{command}`"])
    print(text)
    if abs(noise.median - 1) > AA_LIMIT:
        print(f"rejected: the A/A row is {noise.median:.2f}; measure again on a quieter machine.")
        return 1
    if write:
        file = f"{name}_{short_name(device)}_{date.today():%Y-%m-%d}.md"
        Path(__file__).parent.joinpath("results", file).write_text(text + "\n")
    return 0


def short_name(device: str) -> str:
    """Return a device as it stands in the names of results."""
    if torch.device(device).type != "cuda":
        return "cpu"
    words = torch.cuda.get_device_name(device).lower().split()
    return "-".join(word for word in words if word != "nvidia")
