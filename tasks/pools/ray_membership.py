"""Whether this process can join a Ray cluster, which needs a node of it in reach.

A driver works through the raylet of its node: it finds the raylet among the processes that it can
see, and opens its socket. `ray.init` waits for a minute where the process cannot be seen, and
aborts natively where the socket cannot be opened, so both are checked first. The head answers with
the list of its nodes without a raylet.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ray._private.services import find_node_ids
from ray._raylet import GcsClient  # type: ignore[attr-defined]

from distill_core.errors import ConfigError

ALIVE = 0  # `GcsNodeInfo.GcsNodeState`
ANSWER_SECONDS = 10.0  # of the head
REGISTER_SECONDS = 10.0  # until a raylet that has just started is in the list of the head
MAX_SHOWN = 4  # addresses of nodes in a message
JOBS_PORT = 8265  # Ray's default


@dataclass(frozen=True)
class Node:
    """A node of a cluster."""

    id: str  # hexadecimal
    address: str  # of its network
    socket: str  # path of its raylet's socket


def nodes_of(address: str) -> tuple[Node, ...]:
    """Return the nodes of a cluster that are alive.

    Args:
        address: ``host:port`` of its head.

    Raises:
        ray.exceptions.AuthenticationError: it refuses our token.
        ray.exceptions.RpcError: what listens there is no head of Ray, or does not answer.
    """
    nodes = GcsClient(address=address).get_all_node_info(timeout=ANSWER_SECONDS).values()
    return tuple(
        Node(node.node_id.hex(), node.node_manager_address, node.raylet_socket_name)
        for node in nodes
        if node.state == ALIVE
    )


def check_is_node(address: str) -> None:
    """Refuse to join a cluster from outside its nodes; wait for a node that has just started.

    Args:
        address: ``host:port`` of its head.

    Raises:
        ConfigError: no node of the cluster is in reach of this process.
        ray.exceptions.AuthenticationError, ray.exceptions.RpcError: as `nodes_of`.
    """
    deadline = time.monotonic() + REGISTER_SECONDS
    while (problem := why_not_a_node(nodes := nodes_of(address))) is not None:
        if not find_node_ids() or time.monotonic() > deadline:
            raise ConfigError(f"ray_address={address}: {_refusal(address, nodes, problem)}")
        time.sleep(1.0)


def why_not_a_node(
    nodes: Sequence[Node],
    *,
    visible: Callable[[], Collection[str]] = find_node_ids,
    exists: Callable[[str], bool] = os.path.exists,
) -> str | None:
    """Return what keeps this process from joining a cluster; None: nothing does.

    Args:
        nodes: of the cluster.
        visible: returns the ids of the nodes whose raylets this process can see.
        exists: returns whether there is a file at a path.
    """
    ids = visible()
    if here := [node for node in nodes if node.id in ids]:
        if any(exists(node.socket) for node in here):
            return None
        return (
            f"its raylet runs here, but {here[0].socket} is in another file system. Mount the "
            "folder of Ray's sockets here"
        )
    if sockets := [node.socket for node in nodes if exists(node.socket)]:
        return (
            f"{sockets[0]} is here, but its raylet is in another namespace of processes. Share the "
            "namespace (shareProcessNamespace in a pod)"
        )
    return "no raylet of it runs here"


def _refusal(address: str, nodes: Sequence[Node], problem: str) -> str:
    addresses = [node.address for node in nodes]
    more = ", ..." if len(addresses) > MAX_SHOWN else ""
    listed = ", ".join(addresses[:MAX_SHOWN]) + more if addresses else "none"
    host = address.rpartition(":")[0]
    return (
        f"this machine ({socket.gethostname()}) is not a node of the cluster (its nodes: "
        f"{listed}): {problem}. Run the command on a node, or submit the run from here with "
        f"--submit http://{host}:{JOBS_PORT}."
    )
