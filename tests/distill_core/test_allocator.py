"""Freed memory is kept, and used again without page faults."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from distill_core.allocator import VARIABLES

PAGES, TIMES = 1024, 40  # of a buffer; how often it is allocated and freed
FAULTS = f"""
import resource, sys
from distill_core.allocator import keep_freed_memory
print(keep_freed_memory() if sys.argv[1] == "keep" else False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({TIMES}):
    buffers = [bytes({PAGES} * 4096).replace(b"a", b"b") + b"c" for _ in range(2)]
    del buffers
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, **environment: str) -> tuple[bool, int]:
    """Return whether memory is kept in a process, and its page faults."""
    plain = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    words = [sys.executable, "-c", FAULTS, how]
    ended = subprocess.run(words, env=plain | environment, capture_output=True, check=True)
    kept, count = ended.stdout.split()
    return kept == b"True", int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_freed_buffers_are_used_again() -> None:
    kept, few = faults("keep")
    assert kept
    assert few < PAGES * TIMES / 4 < faults("plain")[1]


@pytest.mark.parametrize("variable", VARIABLES)
def test_settings_of_the_environment_are_left_alone(variable: str) -> None:
    value = "glibc.malloc.tcache_count=0" if variable == "GLIBC_TUNABLES" else "131072"
    assert not faults("keep", **{variable: value})[0]
