"""A call is repeated with growing delay while its store is away, for a limited time."""

from __future__ import annotations

import pytest

from distill_core.errors import DataError, StorageError, StorageRefused
from distill_core.storage.patience import Patience


class Hours:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Away:
    """Fails until a time."""

    def __init__(self, hours: Hours, seconds: float, error: type[Exception] = StorageError) -> None:
        self.hours, self.until, self.error, self.calls = hours, hours.now + seconds, error, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.hours.now < self.until:
            raise self.error("the store is away.")
        return "committed"


def patient(hours: Hours, seconds: float) -> Patience:
    return Patience(seconds, clock=hours, sleep=hours.sleep)


def test_a_call_succeeds_after_an_outage_and_waits_longer_each_time() -> None:
    hours, notices = Hours(), list[str]()
    assert patient(hours, 1800).repeat(Away(hours, 300), notices.append) == "committed"
    longest = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]
    assert 300 <= sum(hours.slept) < 360
    for slept, limit in zip(hours.slept, longest, strict=False):
        assert limit / 2 <= slept <= limit
    assert [text.split(" ")[1] for text in notices] == ["store", "store"]  # away, and back
    assert "Waiting up to 1800 s" in notices[0]


def test_an_outage_that_outlasts_the_patience_ends_with_the_error_of_the_store() -> None:
    hours = Hours()
    with pytest.raises(StorageError, match="away"):
        patient(hours, 600).repeat(Away(hours, 5000))
    assert 540 <= sum(hours.slept) <= 600


@pytest.mark.parametrize("error", [StorageRefused, DataError, ValueError])
def test_an_error_that_does_not_pass_is_raised_at_once(error: type[Exception]) -> None:
    hours, refuse = Hours(), Away(Hours(), 5000, error)
    with pytest.raises(error):
        patient(hours, 600).repeat(refuse)
    assert (refuse.calls, hours.slept) == (1, [])


def test_without_patience_there_is_one_attempt() -> None:
    hours = Hours()
    refuse = Away(hours, 5000)
    with pytest.raises(StorageError):
        patient(hours, 0).repeat(refuse)
    assert refuse.calls == 1
