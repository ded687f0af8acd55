"""Numerics change on purpose or not at all; `make golden` rewrites the files."""

from __future__ import annotations

import json

import pytest

from distill_core.config.fields import Precision
from tests.golden.numbers import GOLDEN
from tests.golden.update import number_file

# float64 to nine digits. float32 sums in another order on another instruction set, and twenty
# steps amplify that: losses agree to one part in a thousand.
TOLERANCE: dict[Precision, float] = {"float64": 1e-9, "float32": 1e-3}


@pytest.mark.parametrize("precision", list(TOLERANCE))
@pytest.mark.parametrize("stage", sorted(GOLDEN))
def test_twenty_steps_give_the_golden_numbers(stage: str, precision: Precision) -> None:
    golden = json.loads(number_file(stage).read_text())[precision]
    assert len(golden) == 20
    assert GOLDEN[stage](precision) == pytest.approx(golden, rel=TOLERANCE[precision])
