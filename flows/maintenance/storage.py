"""Checks of a store: it can be written, arbitrates between drivers, and its clock agrees."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

from distill_core.errors import DistillError
from distill_core.storage.race import WRITERS, race
from distill_core.storage.store import Store, probe
from flows import units
from flows.maintenance.findings import Check, fail
from flows.maintenance.machine import check_disk
from tasks.gc.clock import store_time

SKEW_WARNED = timedelta(seconds=30)  # times of several machines are shown side by side
SKEW_REFUSED = timedelta(minutes=15)  # S3 refuses requests that are signed with such a clock


def check_store(url: str) -> list[Check]:
    """Check that a store can be written, creates an object only once, and has free space."""
    try:
        store = Store(url)
        if store.url.startswith("s3://") and find_spec("s3fs") is None:
            return [fail("store", f"{url}: s3fs is not installed", "pip install 'distill[s3]'.")]
        checks = [check_arbitration(store), check_clock(store)]
    except DistillError as error:
        return [fail("store", str(error).rstrip("."), "")]
    return checks if "://" in store.url else [*checks, check_disk(Path(store.url))]


def check_arbitration(store: Store) -> Check:
    """Check that of several writers of one object exactly one wins, also at the same time.

    Raises:
        StorageError: the store cannot be written, or does not list what was written.
    """
    fix = "Use another store, or --single-writer with one driver only."
    if not probe(store):
        return fail("store", f"{store.url}: creates the same object twice", fix)
    if (winners := race(store)) > 1:
        detail = f"{store.url}: let {winners} of {WRITERS} writers create the same object at once"
        return fail("store", detail, fix)
    detail = f"{store.url}: writable, and one of {WRITERS} writers at once creates an object"
    return Check("store", "OK", detail)


def check_clock(store: Store, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Check:
    """Check the clock of this machine against that of the store, which has whole seconds.

    Raises:
        StorageError: the store cannot be written, or does not list what was written.
    """
    before = now()
    there = store_time(store)
    # The write was made between both times, and may be stamped at the start of its second.
    early, late = before - timedelta(seconds=1), now()
    skew = max(early - there, there - late, timedelta(0))
    if skew <= SKEW_WARNED:
        return Check(
            "clock", "OK", f"within {units.duration(SKEW_WARNED.total_seconds())} of the store's"
        )
    side = "ahead of" if there < early else "behind"
    detail = f"{units.duration(skew.total_seconds())} {side} that of the store"
    if skew < SKEW_REFUSED:
        return Check("clock", "WARN", detail, "Synchronise the clock of this machine (NTP).")
    fix = (
        "Synchronise the clock of this machine (NTP): S3 refuses requests that are signed with it."
    )
    return fail("clock", detail, fix)
