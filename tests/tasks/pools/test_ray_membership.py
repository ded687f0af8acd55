"""Who can join a Ray cluster: a process that reaches the raylet of one of its nodes."""

from __future__ import annotations

import pytest

from tasks.pools.ray_membership import Node, why_not_a_node

HEAD = Node("aa", "10.0.0.1", "/tmp/ray/head/raylet")
WORKER = Node("bb", "10.0.0.2", "/tmp/ray/worker/raylet")


def problem(*, visible: set[str], sockets: set[str]) -> str | None:
    return why_not_a_node(
        [HEAD, WORKER], visible=lambda: visible, exists=lambda path: path in sockets
    )


def test_a_process_that_reaches_a_raylet_of_the_cluster_can_join() -> None:
    assert problem(visible={"bb", "raylet of another cluster"}, sockets={WORKER.socket}) is None


@pytest.mark.parametrize(
    ("visible", "sockets", "reason"),
    [
        (set(), set(), "no raylet of it runs here"),
        ({"raylet of another cluster"}, set(), "no raylet of it runs here"),
        (set(), {HEAD.socket}, "in another namespace of processes"),
        ({"raylet of another cluster"}, {HEAD.socket}, "in another namespace of processes"),
        ({"bb"}, set(), f"{WORKER.socket} is in another file system"),
        ({"bb"}, {HEAD.socket}, f"{WORKER.socket} is in another file system"),
    ],
    ids=["elsewhere", "node of another", "container", "both", "no folder", "socket of another"],
)
def test_the_reason_why_a_process_cannot_join(
    visible: set[str], sockets: set[str], reason: str
) -> None:
    assert reason in str(problem(visible=visible, sockets=sockets))
