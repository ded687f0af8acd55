"""Output of a flow run whose reader may go away: the worker that started it, or `distill serve`.

A worker reads what its flow runs print. If it is killed or restarted, every further line of a flow
run would raise a BrokenPipeError, or end the process where Rich prints it. Prefect's log goes to
the API as well, so nothing is lost if the lines go nowhere.
"""

from __future__ import annotations

import os
import select
import stat
import threading
from collections.abc import Sequence

STANDARD = (1, 2)  # the file descriptors of stdout and stderr
STARTED = "PREFECT__FLOW_RUN_ID"  # set for the process of a flow run by what starts it


def outlive_worker(*_: object, **__: object) -> None:
    """Make the process of a flow run outlive its worker; a hook of the flow, when it is running.

    A flow run inside another program, such as `distill run`, has the output of that program.
    """
    if STARTED in os.environ:
        outlive_reader()


def outlive_reader(descriptors: Sequence[int] = STANDARD) -> None:
    """Redirect pipes to the null device as soon as their reader has gone, from now on.

    Args:
        descriptors: open files; those that are no pipes stay as they are.
    """
    pipes = [number for number in descriptors if stat.S_ISFIFO(os.fstat(number).st_mode)]
    if pipes:
        threading.Thread(target=_watch, args=(pipes,), name="output", daemon=True).start()


def _watch(pipes: Sequence[int]) -> None:
    poll, waiting = select.poll(), set(pipes)
    for number in pipes:
        poll.register(number, 0)  # an end without a reader is an error, which is always reported
    while waiting:
        for number, _ in poll.poll():
            poll.unregister(number)
            waiting.discard(number)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)
