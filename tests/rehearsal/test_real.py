"""The path of real images from archives in a bucket, with few classes and a kill in an epoch."""

from __future__ import annotations

import os

import pytest

from benchmarks.s3_server import served
from tests.rehearsal.real import rehearse, text_of
from tests.rehearsal.synset_tars import upload

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

CLASSES, IMAGES = 60, 24


def test_a_run_goes_on_inside_the_epoch_in_which_it_was_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with served() as (bucket, _):
        source = f"{bucket}/source"
        made = upload(source, classes=CLASSES, images=IMAGES)
        store = f"{bucket}/store"
        facts = rehearse(source, store, classes=CLASSES, images=IMAGES, batch=8, every=4)
    assert made > CLASSES * IMAGES * 500  # bytes
    assert ("real images, to train and to test on", "1,320 and 120") in facts.rows
    assert facts.killed_at[0] == 0
    assert facts.killed_at[1] % 4 == 0
    assert "| killed after a checkpoint at |" in text_of(facts, made="", server="moto")
