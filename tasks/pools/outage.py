"""A service that is away: its failures, from the first one to the last one so far."""

from __future__ import annotations

from dataclasses import dataclass, field

# A service that is away is asked at least so often. Without a failure for longer, it was there.
SILENT_SECONDS = 1200.0


@dataclass
class Outage:
    """The failures of a service that may pass by themselves, while nothing shows that they did."""

    since: float | None = None  # the first one; None: there is no outage
    seen: float = 0.0  # the last one
    nodes: set[str] = field(default_factory=set)  # that met it

    @property
    def seconds(self) -> float:
        """Return the time from the first failure to the last one."""
        return 0.0 if self.since is None else self.seen - self.since

    def meet(self, now: float, node: str) -> bool:
        """Note a failure on a node; return whether it is the first one of an outage."""
        is_first = self.since is None or now - self.seen > SILENT_SECONDS
        if is_first:
            self.since = now
            self.nodes.clear()
        self.seen = now
        self.nodes.add(node)
        return is_first

    def end(self) -> None:
        """Note that the service answers."""
        self.since = None
