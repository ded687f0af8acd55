"""Artifacts, which only inform, never delay the work."""

from __future__ import annotations

import logging
from uuid import uuid4

import pytest

from flows.orchestration import artifacts
from flows.orchestration.artifacts import PAUSE_SECONDS, StageArtifacts


class Api:
    """An API that can be unreachable, and counts its calls."""

    def __init__(self) -> None:
        self.gone, self.asked, self.percent = False, 0, 0.0

    def update(self, artifact: object, percent: float, text: str) -> None:
        """Take an update."""
        self.asked += 1
        if self.gone:
            raise ConnectionError
        self.percent = percent


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    """Return an API in Prefect's place."""
    made = Api()
    monkeypatch.setattr(artifacts, "create_progress_artifact", lambda *_, **__: uuid4())
    monkeypatch.setattr(artifacts, "update_progress_artifact", made.update)
    monkeypatch.setattr(artifacts, "get_run_logger", lambda: logging.getLogger("test"))
    return made


def test_an_unreachable_api_is_called_once_a_minute(api: Api) -> None:
    now = 0.0
    shown = StageArtifacts("run", clock=lambda: now)
    shown.stage_started("recover", total=10, done=0)
    api.gone = True
    for second in range(1, 2 * int(PAUSE_SECONDS)):
        now = float(second)
        shown.job_progress("recover", "c0", second, 1000)
    assert api.asked == 2
    api.gone, now = False, 10 * PAUSE_SECONDS
    shown.stage_finished("recover", 1.0)
    assert api.asked == 3
    assert api.percent > 0


def test_a_reachable_api_is_updated_once_a_second(api: Api) -> None:
    now = 0.0
    shown = StageArtifacts("run", clock=lambda: now)
    shown.stage_started("recover", total=10, done=0)
    for tenth in range(1, 51):
        now = tenth / 10
        shown.job_progress("recover", "c0", tenth, 1000)
    assert api.asked == 5
