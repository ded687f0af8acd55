"""Two pods on one machine: namespaces of networks and of processes, joined by a cable."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

TOOLS = ("ip", "unshare")


def reason_to_skip() -> str | None:
    """Return why this machine cannot make namespaces; None: it can."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"needs {missing[0]}"
    if os.geteuid() != 0:
        return "needs root, to make namespaces"
    tried = subprocess.run(
        ["unshare", "-n", "-p", "-f", "--mount-proc", "true"], capture_output=True, text=True
    )
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else None


class Pod:
    """A namespace of a network, in which commands have a namespace of processes of their own.

    Args:
        name: of the namespace.
        address: in its network.
    """

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address

    def start(self, *command: str, env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        """Start a command, whose processes end with it; its output goes to a file."""
        inside = ["ip", "netns", "exec", self.name]
        apart = ["unshare", "-p", "-f", "--mount-proc", "--kill-child"]
        with log.open("wb") as out:
            return subprocess.Popen(
                [*inside, *apart, *command], env=dict(env), stdout=out, stderr=out
            )


@contextmanager
def two_pods() -> Iterator[tuple[Pod, Pod]]:
    """Make two pods that reach each other, until the end of the block."""
    tag = f"{os.getpid() % 100_000}"
    pods = Pod(f"distill-a{tag}", "10.213.7.1"), Pod(f"distill-b{tag}", "10.213.7.2")
    first, second = pods

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    try:
        for pod in pods:
            ip("netns", "add", pod.name)
        cable = ["type", "veth", "peer", "name", "eth0", "netns", second.name]
        ip("link", "add", "eth0", "netns", first.name, *cable)
        for pod in pods:
            ip("-n", pod.name, "addr", "add", f"{pod.address}/24", "dev", "eth0")
            ip("-n", pod.name, "link", "set", "eth0", "up")
            ip("-n", pod.name, "link", "set", "lo", "up")
        yield pods
    finally:
        for pod in pods:
            subprocess.run(["ip", "netns", "del", pod.name], check=False)
