"""A service that is away: its failures, from the first one to the last one so far."""

from __future__ import annotations

from dataclasses import dataclass, field

# A service that is away is asked at least so often. Without a failure for longer, it was there.
SILENT_SECONDS = 1200.0
# Long attempts that all end with such a failure are an outage, too, though they are far apart.
PAUSES = 10


@dataclass
class Outage:
    """The failures of a service that may pass by themselves, while nothing shows that they did."""

    since: float | None = None  # the first one; None: there is no outage
    seen: float = 0.0  # the last one
    nodes: set[str] = field(default_factory=set)  # that met it
    pauses: int = 0  # after which it began anew, though nothing shows that the service was there

    @property
    def seconds(self) -> float:
        """Return the time from the first failure to the last one."""
        return 0.0 if self.since is None else self.seen - self.since

    def meet(self, now: float, node: str) -> bool:
        """Note a failure on a node; return whether it is the first one of an outage."""
        is_pause = self.since is not None and now - self.seen > SILENT_SECONDS
        self.pauses += is_pause
        is_first = self.since is None or (is_pause and self.pauses <= PAUSES)
        if is_first:
            self.since = now
            self.nodes.clear()
        self.seen = now
        self.nodes.add(node)
        return is_first

    def end(self) -> None:
        """Note that the service answers."""
        self.since, self.pauses = None, 0
