"""Scenarios: those with names, with what the dispatcher made of them before, and random ones."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf, log10
from typing import get_args

from tests.support.cluster.model import Illness, Nature, Node, Scenario, Sickness, Span, Work

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
SHARDS = 219  # of 21,841 classes, one hundred each
HALF_SHARDS = 438  # fifty classes each
SHARD = Work(1.2 * HOUR)

MANY: tuple[Nature, ...] = ("missing", "forbidden", "bad")  # up to a fifth of the jobs of a stage


@dataclass(frozen=True)
class Named:
    """A scenario, with its outcome here under the dispatcher that did not tell faults apart."""

    scenario: Scenario
    before: str


def nodes(count: int, **settings: object) -> tuple[Node, ...]:
    """Return equal nodes with one worker each."""
    return tuple(replace(Node(f"n{n}"), **settings) for n in range(count))  # type: ignore[arg-type]


def _sick(kind: Sickness) -> Scenario:
    ill = Node("sick", ill=(Illness(Span(0.0), kind),))
    return Scenario(f"one of 8 nodes: {kind}", (ill, *nodes(7)), {"recover": (SHARD,) * SHARDS})


def _training(seconds: float, every: float = HOUR) -> Work:
    return Work(seconds, checkpoint=every)


def _reclaimed(node: Node, every: float, back: float, times: int) -> Node:
    starts = [every * (n + 1) + back * n for n in range(times)]
    return replace(node, away=tuple(Span(start, start + back) for start in starts))


_ALL_DAY = (Illness(Span(0.0, 20 * MINUTE), "unreachable"),)
NAMED: Mapping[str, Named] = {
    "a node whose storage refuses": Named(_sick("refused"), "205 of 219 given up"),
    "a node without the data folder": Named(_sick("unmounted"), "191 of 219 given up"),
    "a node with another copy of the data": Named(_sick("stale"), "191 of 219 given up"),
    "a node that computes NaN": Named(_sick("nan"), "205 of 219 given up"),
    "a node whose worker cannot be built": Named(_sick("unbuilt"), "ImportError at once"),
    "63 healthy nodes and a sick one": Named(
        Scenario(
            "63 + 1",
            (Node("sick", ill=(Illness(Span(0.0), "refused"),)), *nodes(63)),
            {"recover": (SHARD,) * HALF_SHARDS},
        ),
        "312 of 438 given up",
    ),
    "a node that is sick for an hour, again and again": Named(
        Scenario(
            "sometimes",
            (
                Node(
                    "sick",
                    ill=tuple(
                        Illness(Span(h * HOUR, (h + 1) * HOUR), "unmounted") for h in (0, 3, 7, 12)
                    ),
                ),
                *nodes(7),
            ),
            {"recover": (SHARD,) * SHARDS},
        ),
        "126 of 219 given up",
    ),
    "all nodes cannot reach the store for 20 minutes": Named(
        Scenario("all sick", nodes(8, ill=_ALL_DAY), {"recover": (SHARD,) * SHARDS}),
        "154 of 219 given up",
    ),
    "the store is away for five minutes": Named(
        Scenario(
            "outage",
            nodes(64),
            {"recover": (SHARD,) * SHARDS},
            outages=(Span(1.2 * HOUR, 1.2 * HOUR + 5 * MINUTE),),
        ),
        "ClusterError after 1.3 h, 77 h of results lost",
    ),
    "six students of 20 h, one GPU gone": Named(
        Scenario(
            "students",
            (*nodes(5), Node("gone", away=(Span(2 * HOUR),))),
            {"posttrain": (_training(20 * HOUR),) * 6},
        ),
        "ClusterError after 5 h",
    ),
    "two workers with shards of 1.2 h, one node gone": Named(
        Scenario(
            "two", (Node("a"), Node("gone", away=(Span(HOUR / 2),))), {"recover": (SHARD,) * 20}
        ),
        "ClusterError after 2.3 h",
    ),
    "a training of 40 h, its machine reclaimed every 8 h": Named(
        Scenario(
            "reclaimed",
            (_reclaimed(Node("spot"), 8 * HOUR, 10 * MINUTE, 9),),
            {"squeeze": (_training(40 * HOUR),)},
        ),
        "ClusterError after 8.1 h",
    ),
    "a training of 40 h, its process killed every 8 h": Named(
        Scenario(
            "killed",
            (Node("a", kills=tuple(8.0 * HOUR * n + MINUTE for n in range(1, 9))),),
            {"squeeze": (_training(40 * HOUR),)},
        ),
        "given up after 32 h",
    ),
    "every node reclaimed for ten minutes at once": Named(
        Scenario(
            "all gone",
            nodes(16, away=(Span(3 * HOUR, 3 * HOUR + 10 * MINUTE),)),
            {"recover": (SHARD,) * SHARDS},
        ),
        "ClusterError after 3.1 h",
    ),
    "a shard that hangs once, with a deadline of 3 h": Named(
        Scenario(
            "hangs",
            nodes(8),
            {"recover": (replace(SHARD, nature="hangs", times=1), *(SHARD,) * 99)},
            deadline=3 * HOUR,
        ),
        "complete after 15.6 h",
    ),
    "a shard with bad data, one that kills, one too large": Named(
        Scenario(
            "culprits",
            nodes(8),
            {
                "recover": (
                    *(SHARD,) * 60,
                    replace(SHARD, nature="bad"),
                    replace(SHARD, nature="poison"),
                    replace(SHARD, nature="huge"),
                    replace(SHARD, nature="large"),
                )
            },
        ),
        "3 of 64 given up",
    ),
}


def random_scenario(seed: int, *, largest: int = HALF_SHARDS) -> Scenario:
    """Return a scenario in which the first node stays there and well.

    Args:
        seed: of the draw.
        largest: how many class shards there may be.
    """
    rng = random.Random(seed)
    shards = round(10 ** rng.uniform(0.5, log10(largest)))
    stages = {
        "squeeze": (_training(rng.uniform(5, 72) * HOUR, HOUR),),
        "recover": _shards(rng, shards, rng.uniform(0.1, 1.5) * HOUR),
        "relabel": _shards(rng, shards, rng.uniform(0.02, 0.3) * HOUR),
        "posttrain": tuple(_training(rng.uniform(5, 20) * HOUR, HOUR) for _ in range(3)),
    }
    drawn = [_node(rng, f"n{number}") for number in range(rng.randint(0, 20))]
    first = Node("n", workers=rng.choice((1, 1, 2, 4, 8)), kills=_kills(rng, 1))
    left, kept = 64 - first.workers, [first]
    for node in drawn:
        if node.workers <= left:
            kept.append(node)
            left -= node.workers
    outages = [
        Span(start, start + rng.uniform(0.5, 25) * MINUTE)
        for start in sorted(rng.uniform(0, 5 * DAY) for _ in range(rng.choice((0, 0, 1, 3))))
    ]
    return Scenario(
        f"random {seed}",
        tuple(kept),
        stages,
        outages=tuple(outages),
        deadline=200 * HOUR if rng.random() < 0.5 else None,
        keeps_results=rng.random() < 0.8,
    )


def _shards(rng: random.Random, count: int, seconds: float) -> tuple[Work, ...]:
    works = [Work(seconds * rng.uniform(0.7, 1.3)) for _ in range(count)]
    for nature in ("bad", "poison", "huge", "large", "bad"):
        if rng.random() < 0.15:
            place = rng.randrange(count)
            times = rng.choice((1, 10**9))
            works[place] = replace(
                works[place], nature=nature, times=times, after=rng.uniform(0.01, 1)
            )
    if rng.random() < 0.2:
        kind = rng.choice(MANY)
        for place in rng.sample(range(count), round(count * rng.uniform(0, 0.2))):
            works[place] = replace(works[place], nature=kind, after=rng.choice((0.0, 0.5)))
    return tuple(works)


def _node(rng: random.Random, name: str) -> Node:
    """Return a machine that may come late, go for good, be reclaimed, or be sick for a while."""
    away: list[Span] = []
    time = 0.0
    if rng.random() < 0.2:
        time = rng.uniform(0, DAY)
        away.append(Span(0.0, time))
    if rng.random() < 0.4:
        between = rng.uniform(6, 48) * HOUR
        while time < 10 * DAY:
            start = time + HOUR / 10 + rng.expovariate(1 / between)
            time = start + rng.uniform(1, 120) * MINUTE
            away.append(Span(start, time))
    if rng.random() < 0.15:
        away.append(Span(time + rng.uniform(0.1, 5) * DAY))
    return Node(
        name,
        workers=rng.choice((1, 1, 2, 4, 8)),
        speed=rng.choice((1.0, 1.0, 1.0, 0.7, 1.4)),
        away=tuple(away),
        ill=_illnesses(rng),
        kills=_kills(rng, 3),
    )


def _illnesses(rng: random.Random) -> tuple[Illness, ...]:
    if rng.random() < 0.6:
        return ()
    kinds = get_args(Sickness)
    if rng.random() < 0.3:
        return (Illness(Span(rng.choice((0.0, rng.uniform(0, 5 * DAY))), inf), rng.choice(kinds)),)
    found, time = [], 0.0
    for _ in range(rng.randint(1, 3)):
        start = time + rng.uniform(0, DAY)
        time = start + rng.uniform(0.02, 8) * HOUR
        found.append(Illness(Span(start, time), rng.choice(kinds)))
    return tuple(found)


def _kills(rng: random.Random, most: int) -> tuple[float, ...]:
    return tuple(sorted(rng.uniform(0, 5 * DAY) for _ in range(rng.randint(0, most))))
