"""Exit codes in words."""

from __future__ import annotations

import signal

import pytest

from distill_core.exit_codes import CAUSES, describe_exit


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (1, "exit code 1"), (None, "exit code None"), (-15, "SIGTERM")],
)
def test_exit_codes_and_signals_without_a_usual_cause_have_no_explanation(
    code: int | None, words: str
) -> None:
    assert describe_exit(code) == words


@pytest.mark.parametrize("name", sorted(CAUSES))
def test_a_signal_with_a_usual_cause_has_its_name_and_the_cause_on_one_line(name: str) -> None:
    words = describe_exit(-signal.Signals[name])
    assert words == f"{name} ({CAUSES[name]})"
    assert "\n" not in words


def test_a_signal_without_a_name_keeps_its_number() -> None:
    assert describe_exit(-(signal.SIGRTMIN + 1)) == f"signal {signal.SIGRTMIN + 1}"
