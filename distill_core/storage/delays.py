"""Growing delays before something that failed is tried again."""

from __future__ import annotations

from zlib import crc32

FIRST_SECONDS = 1.0
OUTAGE_CAP = 60.0  # while a service is away: it is asked at least this often
REST_CAP = 300.0  # of a worker that fails: a machine that was repaired idles at most this long


def growing_delay(failures: int, name: str, *, cap: float) -> float:
    """Return the seconds to wait after a number of failures in a row; they double each time.

    The name spreads those that failed together over the second half of the delay, always in the
    same way, so that a store that comes back is not asked by all of them at once.

    Args:
        failures: 1 or more.
        name: of what failed.
        cap: the largest delay.
    """
    longest = min(cap, FIRST_SECONDS * 2.0 ** min(failures - 1, 30))
    return longest * (0.5 + crc32(f"{name} {failures}".encode()) / 2**33)
