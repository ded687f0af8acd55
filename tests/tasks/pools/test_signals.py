"""Signals end a block once, in order, and within a bounded time."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
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
    for thread in threading.enumerate():
        if thread.name == "signals":
            thread.join(30)
            assert not thread.is_alive()
    assert ended == []


def signalled(code: str, *numbers: signal.Signals, wait: float = 0.0) -> tuple[int, str]:
    """Run a program that prints a line when it is ready, and send signals to it.

    Args:
        code: the program.
        numbers: of the signals, in order.
        wait: seconds before each but the first.

    Returns:
        The exit code, and what it printed on stderr.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        for place, number in enumerate(numbers):
            time.sleep(wait if place else 0.0)
            process.send_signal(number)
        error = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    return process.returncode, error


STUCK = """
import ctypes
from tasks.pools.signals import terminable
from tasks.pools.supervision import supervised
mutex = ctypes.create_string_buffer(64)
def hang(library):
    library.pthread_mutex_lock(mutex)
    print("ready", flush=True)
    library.pthread_mutex_lock(mutex)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_that_is_stuck_in_a_c_function_ends_all_the_same(
    number: signal.Signals, code: int
) -> None:
    program = f"{STUCK}\nwith terminable(0.2):\n    hang(ctypes.CDLL(None))"
    assert signalled(program, number)[0] == code


def test_a_process_that_no_thread_of_its_own_can_end_is_killed() -> None:
    # The C function is called without a release of the interpreter's lock.
    program = (
        f"{STUCK}\nwith terminable(0.2, until_exit=True), supervised(0.5):\n"
        "    hang(ctypes.PyDLL(None))"
    )
    assert signalled(program, signal.SIGTERM)[0] == -signal.SIGKILL


HANGS_AT_ITS_VERY_END = """
import os, signal, sys, threading
from tasks.pools.signals import terminable
class Hangs:
    def __del__(self):
        threading.Event().wait()
with terminable(60, until_exit=True):
    sys.kept = Hangs()  # is deleted when the interpreter is finalised
    sys.stderr = open(2, "w", buffering=1000, closefd=False)
    print("kept", file=sys.stderr)
    print("ready", flush=True)
    threading.Event().wait()
"""


def test_a_process_that_would_hang_in_the_end_of_the_interpreter_ends_before() -> None:
    assert signalled(HANGS_AT_ITS_VERY_END, signal.SIGTERM) == (143, "kept\n")


HANGS_WHILE_UNWINDING = """
import sys, threading
from tasks.pools.signals import terminable
notice = lambda number: print(number.name, file=sys.stderr, flush=True)
with terminable(60, notice=notice):
    try:
        print("ready", flush=True)
        threading.Event().wait()
    finally:
        threading.Event().wait()
"""


def test_a_second_ctrl_c_ends_the_process_at_once() -> None:
    interrupt = signal.SIGINT
    assert signalled(HANGS_WHILE_UNWINDING, interrupt, interrupt, wait=1.0) == (130, "SIGINT\n")


def test_the_exit_code_is_that_of_the_signal_even_if_a_library_handled_it() -> None:
    def librarys(number: int, frame: object) -> None:
        sys.exit(1)

    def starting(arrived: threading.Event) -> None:
        with preserved_handlers():
            signal.signal(signal.SIGTERM, librarys)  # as Ray does while it starts
            try:
                kill_us(signal.SIGTERM)
            finally:
                assert arrived.wait(30)

    arrived = threading.Event()
    with pytest.raises(SystemExit) as end, terminable(notice=lambda _: arrived.set()):
        starting(arrived)
    assert end.value.code == 143


def test_the_descriptor_of_an_event_loop_stays_in_place() -> None:
    loops, ours = socket.socketpair()
    loops.setblocking(False)
    before = signal.set_wakeup_fd(loops.fileno())
    try:
        with pytest.raises(KeyboardInterrupt), terminable():
            kill_us(signal.SIGINT)
        assert ours.recv(1) == bytes([signal.SIGINT])
    finally:
        assert signal.set_wakeup_fd(before) == loops.fileno()
        loops.close()
        ours.close()


def test_a_forked_child_does_not_pass_its_signals_on() -> None:
    ended: list[int] = []
    with terminable(0.2, end=ended.append):
        if (child := os.fork()) == 0:
            try:
                kill_us(signal.SIGTERM)
            finally:
                os._exit(7)
        assert os.waitpid(child, 0)[1] == 7 << 8
        time.sleep(0.4)
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
