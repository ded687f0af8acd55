"""Identities of stages: their text, their rounds and their image sets."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_core.errors import ConfigError
from tasks.stages.names import StageId
from tasks.stages.table import STAGES, row_of, sharded_kinds

IDS = st.builds(
    StageId,
    st.sampled_from(list(STAGES)),
    st.none() | st.integers(1, 99),
    st.sampled_from(["distilled", "random_real"]),
)


@given(IDS)
def test_the_text_of_a_stage_parses_back_to_it(stage: StageId) -> None:
    assert StageId.parse(str(stage)) == stage


@given(st.text())
def test_a_text_that_parses_is_the_text_of_its_stage(text: str) -> None:
    with suppress(ConfigError):
        assert str(StageId.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("recover", StageId("recover")),
        ("recover-2", StageId("recover", 2)),
        ("recover.random_real", StageId("recover", None, "random_real")),
        ("relabel-1.random_real", StageId("relabel", 1, "random_real")),
    ],
)
def test_stored_names_stay_as_they_are(text: str, stage: StageId) -> None:
    assert StageId.parse(text) == stage
    assert str(stage) == text


@pytest.mark.parametrize(
    "text", ["", "recover-0", "recover-", "recover.", "recover.other", "recover.distilled", "a b"]
)
def test_texts_that_name_no_stage_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape("KIND, KIND-ROUND or KIND.IMAGE_SET")):
        StageId.parse(text)


def test_a_kind_without_a_row_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such kind of stage"):
        row_of(StageId("polish"))


def test_every_stage_is_a_row_with_shards_and_ingest_alone_has_a_record() -> None:
    assert sharded_kinds() == tuple(STAGES)
    for kind, row in STAGES.items():
        assert row.kind == kind
        assert row.worker.startswith(f"tasks.stages.{kind}:")
        assert bool(row.record) == (kind == "ingest")
