"""The lifetime of a child process: it ends with its parent, however the parent ends."""

from __future__ import annotations

import os
import signal
import threading
import time

POLL_SECONDS = 0.5


def end_with_parent(parent: int) -> None:
    """Kill this process once its parent is gone, even in the middle of its work.

    A thread watches the parent. On Linux the kernel could do this as well, but it takes the thread
    that started the child for its parent, and that thread may end early.

    Args:
        parent: process id of the parent, from the parent itself: it may already be gone.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()
