"""The rehearsal with all classes and as little computation as possible."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rehearsal.rehearse import rehearse

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]

SLICE = (
    "squeeze.training.epochs=1",
    "recover.steps=2",
    "relabel.views=1",
    "relabel.views_per_shard=1",
    "posttrain.sets=[distilled]",
    "posttrain.epochs=1",
    "posttrain.evaluate_every=1",
)
DRIVER_BYTES = 1.5e9


def test_every_class_goes_through_every_stage(tmp_path: Path) -> None:
    facts = rehearse(tmp_path / "store", SLICE)
    assert facts.first.peak_bytes < DRIVER_BYTES
    assert ("class shards", "219") in facts.rows
