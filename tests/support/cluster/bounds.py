"""The best time that a stage can take on the nodes there were.

The bound is a lower one, for a scheduler that knows the future: every worker that is there and well
computes without a pause, jobs can be divided as long as as many whole attempts of the shortest kind
fit between the faults, none takes less than the longest attempt, and only work that is lost by a
fault is done again. No real scheduler reaches it, because a job runs to its end on one worker. So
the time that is allowed has a second term for the last jobs: one more job of the longest kind on
the slowest node, and what each fault destroyed that hit a job after the last one was begun, with
the time in which a worker is built or set aside. While the store is away no job can begin or end,
so that time is added, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from distill_core.storage.delays import REST_CAP
from tests.support.cluster.model import Node, Scenario, Span, Work
from tests.support.cluster.world import BEGIN_SECONDS, BUILD_SECONDS

MARGIN = 1.1


@dataclass(frozen=True)
class Demand:
    """The work of a stage from its start."""

    start: float
    works: Sequence[Work]  # those that can be done
    shortest: float  # seconds of work of the shortest attempt that completed one of them
    longest: float  # likewise, the longest
    extra: float = 0.0  # seconds of work that faults destroyed, or that can never be done


def best_seconds(scenario: Scenario, demand: Demand) -> float:
    """Return the least time in which the nodes could do the work of a stage."""
    free = [
        (node, _free_spans(node, demand)) for node in scenario.nodes for _ in range(node.workers)
    ]
    low, high = 0.0, demand.longest / max(node.speed for node in scenario.nodes)
    high = max(high, 1.0)
    while not _suffices(free, demand, high):
        low, high = high, 2 * high
    while high - low > max(1.0, high / 1000):
        middle = (low + high) / 2
        low, high = (low, middle) if _suffices(free, demand, middle) else (middle, high)
    return low


def allowed_seconds(scenario: Scenario, demand: Demand, *, best: float, late_faults: int) -> float:
    """Return the time that a stage may take.

    Args:
        scenario: nodes and faults.
        demand: the work of the stage.
        best: `best_seconds`.
        late_faults: how many attempts were interrupted after the last job had been begun.
    """
    longest = max((work.seconds for work in demand.works), default=0.0)
    slowest = min(node.speed for node in scenario.nodes)
    pause = BUILD_SECONDS + BEGIN_SECONDS + REST_CAP
    again = max((min(work.seconds, work.checkpoint or inf) for work in demand.works), default=0.0)
    outages = sum(span.end - span.start for span in scenario.outages)
    last = longest / slowest + pause
    return MARGIN * best + last + late_faults * (again / slowest + pause) + outages


def _free_spans(node: Node, demand: Demand) -> list[Span]:
    """Return when a worker of a node may compute, from the start of a stage.

    A node that falls ill may still end what it has begun.
    """
    start, grace = demand.start, demand.longest / node.speed
    blocked = [Span(span.start, span.end + BUILD_SECONDS) for span in node.away]
    for illness in node.ill:
        span = illness.span
        if span.start <= start:
            blocked.append(span)
        elif illness.kind != "unbuilt":
            blocked.append(Span(span.start + grace, max(span.end, span.start + grace)))
    free, at = [], start + BUILD_SECONDS
    for span in sorted(blocked, key=lambda span: span.start):
        if span.start > at:
            free.append(Span(at, span.start))
        at = max(at, span.end)
    return [*free, Span(at)]


def _suffices(free: list[tuple[Node, list[Span]]], demand: Demand, seconds: float) -> bool:
    """Return whether the capacity up to a time is enough, in seconds of work and in jobs."""
    end = demand.start + seconds
    needed = sum(work.seconds + BEGIN_SECONDS for work in demand.works) + demand.extra
    capacity, jobs = 0.0, 0
    for node, spans in free:
        amounts = [max(0.0, min(end, span.end) - span.start) * node.speed for span in spans]
        capacity += sum(amounts)
        jobs += sum(int(amount / demand.shortest + 1e-9) for amount in amounts)
    return capacity >= needed and jobs >= len(demand.works)
