"""The faults of a request to an S3 server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Answer:
    """A response as it goes over the wire; the declared length may differ from the body's."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    length: str | None  # of Content-Length; None: not said


class Exchange(Protocol):
    """One request, in the hands of a fault."""

    method: str
    path: str  # with the query
    headers: list[tuple[str, str]]
    body: bytes  # of the request

    def forward(self) -> Answer:
        """Let the server carry the request out, and return its answer."""

    def send(self, answer: Answer) -> None:
        """Answer the client."""

    def cut(self) -> None:
        """End the connection after what was sent."""

    def reset(self) -> None:
        """Drop the connection so that the client reads a reset, not an end."""

    def wait(self, seconds: float) -> None:
        """Do nothing for a while, or until the proxy closes."""


Fault = Callable[[Exchange], None]


def error(code: str, status: int) -> Fault:
    """Refuse with an S3 error; the request does not reach the server."""

    def refuse(exchange: Exchange) -> None:
        exchange.send(refusal(code, status))

    refuse.__name__ = code
    return refuse


def refusal(code: str, status: int) -> Answer:
    """Return an S3 error as XML."""
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
        f"<Message>The proxy says {code}.</Message><RequestId>proxy</RequestId></Error>"
    ).encode()
    return Answer(status, (("Content-Type", "application/xml"),), body, str(len(body)))


slow_down = error("SlowDown", 503)
internal_error = error("InternalError", 500)


def reset_before(exchange: Exchange) -> None:
    """Reset the connection; the request does not reach the server."""
    exchange.reset()


def away(exchange: Exchange) -> None:
    """Reset the connection, as a server does that is down."""
    exchange.reset()


def reset_after(exchange: Exchange) -> None:
    """Let the server carry the request out, then reset the connection."""
    exchange.forward()
    exchange.reset()


def applied_but_500(exchange: Exchange) -> None:
    """Let the server carry the request out, then report an error."""
    exchange.forward()
    exchange.send(refusal("InternalError", 500))


def truncated(exchange: Exchange) -> None:
    """Send half of the body the headers announce, then end the connection."""
    answer = exchange.forward()
    half = answer.body[: len(answer.body) // 2]
    exchange.send(Answer(answer.status, answer.headers, half, answer.length))
    exchange.cut()


def flipped_bit(exchange: Exchange) -> None:
    """Change one bit in the middle of the body."""
    answer = exchange.forward()
    body = bytearray(answer.body)
    if body:
        body[len(body) // 2] ^= 1
    exchange.send(Answer(answer.status, answer.headers, bytes(body), answer.length))


def flipped_upload(exchange: Exchange) -> None:
    """Change one bit in the middle of the request's body; the client gets the server's answer."""
    body = bytearray(exchange.body)
    if body:
        body[len(body) // 2] ^= 1
    exchange.body = bytes(body)
    exchange.send(exchange.forward())


def halved_upload(exchange: Exchange) -> None:
    """Pass on half of the request's body; the client gets the server's answer."""
    exchange.body = exchange.body[: len(exchange.body) // 2]
    exchange.send(exchange.forward())


def lost_upload(exchange: Exchange) -> None:
    """Acknowledge a request that does not reach the server."""
    exchange.send(Answer(200, (("ETag", f'"{hashlib.md5(exchange.body).hexdigest()}"'),), b"", "0"))


def unlisted(exchange: Exchange) -> None:
    """Answer a listing with nothing, whatever is stored."""
    body = b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>'
    headers = (("Content-Type", "application/xml"),)
    exchange.send(Answer(200, headers, body, str(len(body))))


def without_condition(exchange: Exchange) -> None:
    """Hide ``If-None-Match`` from the server, as stores do that ignore it."""
    exchange.headers = [(n, v) for n, v in exchange.headers if n.lower() != "if-none-match"]
    exchange.send(exchange.forward())


def check_then_write(exchange: Exchange) -> None:
    """Look whether the object exists and then write it, as stores do that lose races."""
    method, body = exchange.method, exchange.body
    exchange.method, exchange.body = "HEAD", b""
    exists = exchange.forward().status == 200
    exchange.method, exchange.body = method, body
    if exists:
        exchange.send(refusal("PreconditionFailed", 412))
    else:
        exchange.wait(0.05)  # in which other writers look, too
        without_condition(exchange)


def delayed(seconds: float) -> Fault:
    """Pass the request on after a while."""

    def wait(exchange: Exchange) -> None:
        exchange.wait(seconds)
        exchange.send(exchange.forward())

    wait.__name__ = f"delayed {seconds} s"
    return wait


# What a rate draws from: faults that a patient client survives without noticing.
PASSING: tuple[Fault, ...] = (
    slow_down,
    internal_error,
    reset_before,
    reset_after,
    applied_but_500,
)
