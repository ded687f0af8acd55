"""A proxy on loopback that spoils chosen requests between an S3 client and its server.

    with FaultProxy(server, [Rule(slow_down, "PUT", times=2)]) as proxy:
        ...  # a client whose endpoint is proxy.url

Everything else passes unchanged, the signed ``Host`` included, so servers that check signatures
accept it. Only `without_condition` removes a signed header: Ceph refuses what it lets through.
"""

from __future__ import annotations

import http.client
import random
import re
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.support.fault_kinds import PASSING, Answer, Exchange, Fault, away, truncated
from tests.support.fault_rules import Rule

__all__ = ["FaultProxy", "Rule", "Seen"]

UPSTREAM_TIMEOUT_SECONDS = 60
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclass(frozen=True)
class Seen:
    """One request that reached the proxy."""

    method: str
    path: str  # with the query
    fault: str  # what was done to it; empty: it passed


@dataclass
class FaultProxy:
    """A server on loopback that forwards requests, except where a rule or chance applies a fault.

    Args:
        upstream_url: ``http://host:port`` of the S3 server.
        rules: consulted in order; one may be appended while the proxy runs.
        rate: share of the remaining requests that get a fault of `PASSING`, 0 to 1.
        seed: of the draws; the n-th request meets the same fate in every run.
    """

    upstream_url: str
    rules: Iterable[Rule] = ()
    rate: float = 0.0
    seed: int = 0
    requests: list[Seen] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self.rules = list(self.rules)
        self._lock = threading.Lock()
        handler = type("Bound", (Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Return the address to give to a client as its endpoint."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def outage(self, fault: Fault = away) -> Iterator[None]:
        """Apply a fault to every request during the block."""
        rule, rules = Rule(fault, times=None), self.rules
        assert isinstance(rules, list)
        rules.insert(0, rule)
        try:
            yield
        finally:
            rules.remove(rule)

    def count(self, method: str = "", path: str = "") -> int:
        """Return how many requests came, spoiled ones included; `path` is a regular expression."""
        with self._lock:
            seen = list(self.requests)
        return sum(method in ("", s.method) and bool(re.search(path, s.path)) for s in seen)

    def forget(self) -> None:
        """Start counting anew."""
        with self._lock:
            self.requests.clear()

    def handle(self, exchange: Exchange) -> None:
        """Decide what becomes of a request, and do it."""
        with self._lock:
            fault = self._fault(exchange)
            name = "" if fault is None else fault.__name__
            self.requests.append(Seen(exchange.method, exchange.path, name))
        if fault is None:
            exchange.send(exchange.forward())
        else:
            fault(exchange)

    def _fault(self, exchange: Exchange) -> Fault | None:
        for rule in self.rules:
            if rule.takes(exchange):
                return rule.fault
        draw = random.Random(f"{self.seed}/{len(self.requests)}")
        if draw.random() >= self.rate:
            return None
        return draw.choice((*PASSING, truncated) if exchange.method == "GET" else PASSING)


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    proxy: FaultProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave together

    def handle_one_request(self) -> None:
        """Serve a request; a client that has gone, or a reset of ours, ends the connection."""
        try:
            super().handle_one_request()
        except (ConnectionError, ValueError):  # ValueError: what `reset` closed is flushed
            self.close_connection = True

    def handle_expect_100(self) -> bool:
        """Request the body at once; the client waits for that."""
        proceed = super().handle_expect_100()
        self.wfile.flush()
        return proceed

    def finish(self) -> None:
        """Close the connection, unless `reset` has."""
        with suppress(ConnectionError, ValueError):
            super().finish()

    def answer(self) -> None:
        """Serve a request of any method."""
        self.proxy.handle(Held(self))

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing; `FaultProxy.requests` keeps the requests."""


class Held:
    """An exchange on a connection."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.method, self.path = handler.command, handler.path
        self.headers = list(handler.headers.items())
        self.body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))

    def forward(self) -> Answer:
        """Let the server carry the request out, and return its answer."""
        place = urlsplit(self._handler.proxy.upstream_url)
        # A connection of its own: one kept open might be closed by the server in the meantime.
        link = http.client.HTTPConnection(place.netloc, timeout=UPSTREAM_TIMEOUT_SECONDS)
        with closing(link):
            link.putrequest(self.method, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers:
                if name.lower() not in HOP_BY_HOP:
                    link.putheader(name, value)
            link.putheader("Content-Length", str(len(self.body)))
            link.endheaders(self.body)
            reply = link.getresponse()
            body, length = reply.read(), reply.getheader("Content-Length")
        headers = tuple((n, v) for n, v in reply.getheaders() if n.lower() not in HOP_BY_HOP)
        if length is None and self.method != "HEAD" and reply.status not in (204, 304):
            length = str(len(body))  # it came in chunks
        return Answer(reply.status, headers, body, length)

    def send(self, answer: Answer) -> None:
        """Answer the client."""
        self._handler.send_response_only(answer.status)
        for name, value in answer.headers:
            self._handler.send_header(name, value)
        if answer.length is not None:
            self._handler.send_header("Content-Length", answer.length)
        self._handler.end_headers()
        if self.method != "HEAD":
            self._handler.wfile.write(answer.body)

    def cut(self) -> None:
        """End the connection after what was sent; a reset would throw some of it away."""
        self._handler.wfile.flush()
        self._handler.connection.shutdown(socket.SHUT_WR)
        self._handler.close_connection = True

    def reset(self) -> None:
        """Drop the connection so that the client reads a reset, not an end."""
        link = self._handler.connection
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The handler's files hold the socket open: closing it alone would send nothing.
        for stream in (self._handler.rfile, self._handler.wfile, link):
            stream.close()
        self._handler.close_connection = True

    def wait(self, seconds: float) -> None:
        """Do nothing for a while, or until the proxy closes."""
        self._handler.proxy.closed.wait(seconds)
