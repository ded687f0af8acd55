"""Rules of the faulty proxy: which requests meet a fault."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.support.fault_kinds import Exchange, Fault

CONDITION = "if-none-match"


@dataclass
class Rule:
    """A fault for some requests; the first rule that matches a request applies."""

    fault: Fault
    method: str = ""  # GET, PUT, ...; empty: any
    path: str = ""  # regular expression, searched in path and query
    times: int | None = 1  # how many requests; None: all
    after: int = 0  # how many matching requests pass before
    conditional: bool = False  # only requests with If-None-Match
    access_key: str = ""  # only requests that are signed with it; empty: any

    def takes(self, exchange: Exchange) -> bool:
        """Return whether a request is for this rule, and count it."""
        if self.times == 0 or not self._fits(exchange):
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True

    def _fits(self, exchange: Exchange) -> bool:
        headers = {name.lower(): value for name, value in exchange.headers}
        return (
            self.method in ("", exchange.method)
            and re.search(self.path, exchange.path) is not None
            and (CONDITION in headers or not self.conditional)
            and f"Credential={self.access_key}" in headers.get("authorization", "Credential=")
        )
