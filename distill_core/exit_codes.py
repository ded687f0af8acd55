"""Exit codes of processes, in words."""

from __future__ import annotations

import signal

CAUSES = {
    "SIGKILL": "sent by the kernel if memory ran out: see `dmesg`, and use fewer workers",
    "SIGSEGV": "a fault in compiled code: see `distill doctor`",
    "SIGBUS": "a fault in compiled code, or a full /dev/shm: see `distill doctor`",
    "SIGABRT": "compiled code gave up, often on corrupt memory: see `distill doctor`",
    "SIGILL": "compiled code for another CPU: see `distill doctor`",
    "SIGFPE": "a fault in compiled code: see `distill doctor`",
}


def describe_exit(code: int | None) -> str:
    """Return the signal that ended a process, with its usual cause, or the exit code.

    Args:
        code: of `multiprocessing` or `subprocess`: negative for a signal. None: it is not known.
    """
    name = signal_name(code)
    return f"{name} ({CAUSES[name]})" if name in CAUSES else name


def signal_name(code: int | None) -> str:
    """Return only the name of the signal that ended a process, or the exit code."""
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"signal {-code}"
