"""Signals end a block once, in order, and within a bounded time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tasks.pools.signals import preserved_handlers, terminable


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Start with the handlers of a new process, and restore those of other tests, such as Ray's."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def kill_us(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_sigterm_without_a_handler_exits_with_143() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(SystemExit) as end, terminable():
        kill_us(signal.SIGTERM)
    assert end.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_sigint_still_raises_keyboard_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), terminable():
        kill_us(signal.SIGINT)


def test_the_previous_handler_decides_what_is_raised() -> None:
    def mine(number: int, frame: object) -> None:
        raise ZeroDivisionError

    def disturbed() -> None:
        signal.signal(signal.SIGTERM, mine)
        with terminable():
            assert signal.getsignal(signal.SIGTERM) is not mine
            kill_us(signal.SIGTERM)

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with terminable(), pytest.raises(ZeroDivisionError):
        disturbed()


def test_a_handler_of_the_host_program_is_kept_and_its_exception_is_raised() -> None:
    class Ended(BaseException):
        pass

    def hosts(number: int, frame: object) -> None:
        raise Ended

    def inside_of_a_library() -> None:
        try:
            kill_us(signal.SIGTERM)
        except Ended as error:
            raise SystemError("returned a result with an exception set") from error

    signal.signal(signal.SIGTERM, hosts)
    with terminable():
        assert signal.getsignal(signal.SIGTERM) is hosts
    with pytest.raises(Ended), terminable():
        inside_of_a_library()


def test_a_second_signal_does_not_disturb_the_unwinding() -> None:
    unwound = []

    def interrupted() -> None:
        try:
            kill_us(signal.SIGINT)
        finally:
            kill_us(signal.SIGINT)
            kill_us(signal.SIGTERM)
            unwound.append(True)

    with pytest.raises(KeyboardInterrupt), terminable():
        interrupted()
    assert unwound == [True]


def test_an_error_that_a_library_makes_of_a_signal_does_not_hide_it() -> None:
    def inside_of_a_library() -> None:
        try:
            kill_us(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise SystemError("returned a result with an exception set") from error

    with pytest.raises(KeyboardInterrupt), terminable():
        inside_of_a_library()
    with pytest.raises(KeyboardInterrupt), terminable(), terminable():
        inside_of_a_library()


def test_an_error_without_a_signal_is_raised_unchanged() -> None:
    with pytest.raises(SystemError), terminable():
        raise SystemError


def test_a_process_that_does_not_unwind_in_time_is_ended() -> None:
    ended, codes = threading.Event(), []

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    def hanging() -> None:
        try:
            kill_us(signal.SIGINT)
        finally:
            assert ended.wait(30)

    with pytest.raises(KeyboardInterrupt), terminable(0.01, end=end):
        hanging()
    assert codes == [130]


def test_a_process_that_hangs_while_unwinding_ends_with_143() -> None:
    code = """
import os, signal, threading
from tasks.pools.signals import terminable
with terminable(0.2):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        threading.Event().wait()
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 143


def test_a_block_to_the_end_also_covers_the_exit_of_the_process() -> None:
    code = """
import os, signal, threading
from tasks.pools.signals import terminable
try:
    with terminable(0.2, until_exit=True):
        os.kill(os.getpid(), signal.SIGTERM)
finally:
    threading.Event().wait()
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 143


def test_an_outer_block_still_exits_with_143_after_another_handler_was_set() -> None:
    def between(number: int, frame: object) -> None:
        raise ZeroDivisionError

    def disturbed() -> None:
        signal.signal(signal.SIGTERM, between)
        with terminable():
            kill_us(signal.SIGTERM)

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(SystemExit) as ended, terminable():
        disturbed()
    assert ended.value.code == 143


def test_a_process_that_unwinds_in_time_is_not_ended() -> None:
    ended: list[int] = []
    with pytest.raises(KeyboardInterrupt), terminable(60, end=ended.append):
        kill_us(signal.SIGINT)
    timers = [one for one in threading.enumerate() if isinstance(one, threading.Timer)]
    for timer in timers:
        timer.join(30)
    assert ended == []


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with terminable():
        kill_us(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_handlers_survive_a_library_that_replaces_them() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with preserved_handlers():
        signal.signal(signal.SIGTERM, lambda *_: None)
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_nothing_changes() -> None:
    seen = []

    def inside() -> None:
        with terminable(), preserved_handlers():
            seen.append(True)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join(30)
    assert seen == [True]
