"""The proxy applies its rules and passes everything else unchanged."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support import fault_kinds
from tests.support.fault_proxy import FaultProxy, Rule

BODY = b"0123456789" * 100


class Server:
    """Answers every request with `BODY` and remembers what came."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.seen.append((self.command, self.path, dict(self.headers), sent))
                self.send_response(200)
                self.send_header("Content-Length", str(len(BODY)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(BODY)

            do_PUT = do_HEAD = do_GET

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


def ask(
    proxy: FaultProxy, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    """Send one request and return the status and the whole body."""
    with closing(http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=20)) as link:
        link.request(method, "/bucket/key?x=1", body, headers)
        reply = link.getresponse()
        return reply.status, reply.read()


def test_requests_without_a_rule_pass_unchanged_with_their_signed_host(server: Server) -> None:
    with FaultProxy(server.url, [Rule(fault_kinds.slow_down, "PUT", "other")]) as proxy:
        assert ask(proxy, "PUT", b"data", Authorization="signed") == (200, BODY)
        assert ask(proxy, "HEAD") == (200, b"")
        (method, path, headers, sent), _ = server.seen
        assert (method, path, sent) == ("PUT", "/bucket/key?x=1", b"data")
        assert headers["Host"] == proxy.url.removeprefix("http://")
        assert headers["Authorization"] == "signed"
        assert proxy.count("PUT", r"key\?x") == proxy.count("HEAD") == 1
        assert proxy.count() == 2


def test_a_rule_applies_to_a_number_of_requests_after_a_number_of_others(server: Server) -> None:
    rules = [Rule(fault_kinds.slow_down, "GET", "key", times=2, after=1)]
    with FaultProxy(server.url, rules) as proxy:
        assert [ask(proxy)[0] for _ in range(5)] == [200, 503, 503, 200, 200]
        assert [seen.fault for seen in proxy.requests] == ["", "SlowDown", "SlowDown", "", ""]


@pytest.mark.parametrize(
    ("fault", "arrives"), [(fault_kinds.reset_before, 0), (fault_kinds.reset_after, 1)]
)
def test_a_reset_comes_before_or_after_the_server_worked(
    server: Server, fault: fault_kinds.Fault, arrives: int
) -> None:
    with FaultProxy(server.url, [Rule(fault)]) as proxy:
        with pytest.raises(ConnectionResetError):
            ask(proxy, "PUT", b"data")
        assert len(server.seen) == arrives
        assert ask(proxy, "PUT", b"data") == (200, BODY)


def test_an_error_is_xml_with_its_code(server: Server) -> None:
    with FaultProxy(server.url, [Rule(fault_kinds.error("AccessDenied", 403))]) as proxy:
        status, body = ask(proxy)
    assert status == 403
    assert re.search(b"<Code>AccessDenied</Code>", body)
    assert server.seen == []


def test_an_applied_request_can_be_reported_as_failed(server: Server) -> None:
    with FaultProxy(server.url, [Rule(fault_kinds.applied_but_500)]) as proxy:
        assert ask(proxy, "PUT", b"data")[0] == 500
    assert server.seen[0][3] == b"data"


def test_a_truncated_body_is_half_of_what_was_announced(server: Server) -> None:
    with (
        FaultProxy(server.url, [Rule(fault_kinds.truncated)]) as proxy,
        pytest.raises(http.client.IncompleteRead) as caught,
    ):
        ask(proxy)
    assert caught.value.partial == BODY[: len(BODY) // 2]


def test_one_bit_is_flipped(server: Server) -> None:
    with FaultProxy(server.url, [Rule(fault_kinds.flipped_bit)]) as proxy:
        _, body = ask(proxy)
    different = [(a, b) for a, b in zip(body, BODY, strict=True) if a != b]
    assert [a ^ b for a, b in different] == [1]


def test_only_conditional_requests_lose_their_condition(server: Server) -> None:
    rule = Rule(fault_kinds.without_condition, conditional=True, times=None)
    with FaultProxy(server.url, [rule]) as proxy:
        ask(proxy, "PUT", b"data", **{"If-None-Match": "*"})
        ask(proxy, "PUT", b"data")
        assert [seen.fault for seen in proxy.requests] == ["without_condition", ""]
    assert all("If-None-Match" not in headers for _, _, headers, _ in server.seen)


def test_a_proxy_that_closes_does_not_wait_out_a_delay(server: Server) -> None:
    arrived = threading.Event()

    def stuck(exchange: fault_kinds.Exchange) -> None:
        arrived.set()
        fault_kinds.delayed(3600)(exchange)

    with ThreadPoolExecutor(1) as threads, FaultProxy(server.url, [Rule(stuck)]) as proxy:
        answer = threads.submit(ask, proxy)
        assert arrived.wait(20)
    assert answer.result(20) == (200, BODY)


def test_a_rate_spoils_its_share_of_requests_deterministically(server: Server) -> None:
    def fates(seed: int) -> list[str]:
        with FaultProxy(server.url, rate=0.3, seed=seed) as proxy:
            for _ in range(60):
                try:
                    ask(proxy)
                except (ConnectionError, http.client.HTTPException):
                    continue
            return [seen.fault for seen in proxy.requests]

    first = fates(1)
    assert fates(1) == first != fates(2)
    assert 8 <= sum(fault != "" for fault in first) <= 28
    assert set(first) > {"", "SlowDown", "InternalError"}
