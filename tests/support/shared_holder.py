"""A program: a process that holds a shared file, and what it costs.

    python -m tests.support.shared_holder NAME SIZE [PAUSE]

It prints a JSON object: whether this process filled the file, the sum of its bytes, and the
proportional memory of the process beyond what it had before. It ends with its standard input. With
PAUSE, it fills half of the file, prints a line, and waits.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np

from distill_core.storage.shared_files import Write, shared_file

ROLLUP = Path("/proc/self/smaps_rollup")


def proportional() -> int:
    """Return the proportional set size of this process in bytes: shared pages count in parts."""
    found = re.search(r"^Pss:\s+(\d+) kB", ROLLUP.read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def main(name: str, size: int, *, pause: bool) -> None:
    """Hold a file until the standard input ends; each further line repeats the measurement."""
    filled = False

    def fill(write: Write) -> None:
        nonlocal filled
        filled = True
        write(b"\x01" * (size // 2))
        if pause:
            print("half", flush=True)
            sys.stdin.readline()
        write(b"\x01" * (size - size // 2))

    before = proportional()
    file = shared_file(name, fill, size=size)
    content = np.frombuffer(file.map(), np.uint8)
    while True:
        facts = {
            "filled": filled,
            "shared": file.is_shared,
            "sum": int(content.sum()),
            "memory": proportional() - before,
        }
        print(json.dumps(facts), flush=True)
        if not sys.stdin.readline():
            return


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), pause=len(sys.argv) > 3)
