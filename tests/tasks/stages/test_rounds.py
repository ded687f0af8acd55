"""Images made in rounds: what the config may say, which stages follow, what the keys hold."""

from __future__ import annotations

import pytest

from distill_core.config.load import load_run
from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from distill_core.keys import (
    EvaluationSplit,
    RecoverReads,
    StudentStart,
    TrainingSet,
    posttrain_key,
    recover_key,
    select_key,
)
from distill_core.sharding import ClassEntry, plan_shards
from tasks.stages.names import round_of_image
from tasks.stages.table import STAGES, stages_of

CLASSES = tuple(ClassEntry(n, f"n{n}") for n in range(4))
CONTENT = {c.wnid: f"content of {c.wnid}" for c in CLASSES}
ROUNDS = "rounds={starts: [2, 6], student: {name: convnet3}, epochs: 3, warm_lr: 0.0005}"
JUDGED = "recover.init=judged"
ADVERSARIAL = "recover.terms={cross_entropy: 1.0, adversarial: 1.0}"


def a_run(*overrides: str) -> RunConfig:
    return load_run("digits-demo", overrides)


def recover(run: RunConfig, **reads: str) -> str:
    recover = run.recover
    shards = plan_shards(
        CLASSES,
        ipc=run.ipc,
        ipc_range=recover.ipc_range,
        batch_size=recover.batch_size,
        composition=recover.composition,
    )
    return recover_key(
        run,
        "distilled",
        shards[0],
        reads=RecoverReads(teachers=["t"], **reads),
        fingerprints=CONTENT,
    )


def select(run: RunConfig, **changes: object) -> str:
    asked: dict[str, object] = {"teacher": "t", "student": None, "before": None, "start": 0}
    return select_key(
        run,
        ["n0", "n1"],
        fingerprints=CONTENT,
        **asked | changes,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([ROUNDS], "their students are not used"),
        ([ADVERSARIAL], "needs a student: set rounds"),
        ([ROUNDS, "recover.terms={adversarial: 1}"], "add a term besides"),
        ([ROUNDS, JUDGED, "rounds.starts=[6, 2]"], "must be in ascending order"),
        ([ROUNDS, JUDGED, "rounds.starts=[3]"], "a multiple of recover.ipc_range"),
    ],
)
def test_invalid_rounds_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        a_run(*overrides)


def test_a_run_without_rounds_has_every_stage_but_the_optional_ones() -> None:
    optional = ("select", "pack")
    assert [str(s) for s in stages_of(a_run())] == [k for k in STAGES if k not in optional]


def test_a_run_of_one_round_with_judged_starts_and_packs_has_every_stage_once() -> None:
    run = a_run(JUDGED, "data.pack={encoding: original}")
    assert [str(stage) for stage in stages_of(run)] == list(STAGES)


def test_earlier_rounds_have_numbered_stages_and_the_last_has_plain_names() -> None:
    run = a_run(ROUNDS, JUDGED)
    assert tuple(map(str, stages_of(run)))[3:] == (
        *("select-1", "recover-1", "relabel-1", "posttrain-1"),
        *("select-2", "recover-2", "relabel-2", "posttrain-2"),
        *("select", "recover", "relabel", "posttrain"),
        "validate",
    )
    last = [stage.last_round(run) for stage in stages_of(run) if stage.kind == "recover"]
    assert last == [1, 2, 3]


def test_an_image_belongs_to_the_last_round_that_starts_at_or_before_it() -> None:
    run = a_run(ROUNDS, JUDGED)
    assert [round_of_image(run, n) for n in (0, 1, 2, 5, 6, 9)] == [1, 1, 2, 2, 3, 3]


def test_rounds_beyond_the_images_per_class_are_left_out() -> None:
    assert a_run(ROUNDS, JUDGED, "ipc=6").round_starts == (0, 2)


def test_the_student_of_a_round_is_trained_as_in_posttrain_except_for_the_settings_of_rounds() -> (
    None
):
    run = a_run(ROUNDS, JUDGED)
    first, second = run.after_round(1).posttrain, run.after_round(2).posttrain
    assert (first.epochs, first.optimizer.lr) == (3, run.posttrain.optimizer.lr)
    assert second.optimizer.lr == 0.0005
    assert first.temperature == run.posttrain.temperature
    assert [student.name for student in second.students] == ["convnet3"]


def test_an_image_key_follows_the_selection_and_the_student_but_not_later_rounds() -> None:
    run = a_run(ROUNDS, JUDGED, ADVERSARIAL)
    assert len({recover(run), recover(run, selection="s"), recover(run, student="s")}) == 3
    assert recover(a_run(ROUNDS, JUDGED, ADVERSARIAL, "rounds.starts=[2]")) == recover(run)
    assert recover(a_run(ROUNDS, JUDGED, ADVERSARIAL, "rounds.epochs=9")) == recover(run)
    assert recover(a_run(ROUNDS, JUDGED, ADVERSARIAL, "recover.candidates=9")) == recover(run)


def test_a_selection_key_follows_earlier_selections_and_the_networks_that_scored_it() -> None:
    run = a_run(ROUNDS, JUDGED)
    other = {"teacher": "u"}, {"student": "s"}, {"before": "b"}, {"start": 2}
    assert len({select(run), *(select(run, **change) for change in other)}) == 5
    assert select(a_run(ROUNDS, JUDGED, "recover.candidates=9")) != select(run)
    assert select(a_run(ROUNDS, JUDGED, "ipc=50", "recover.steps=7")) == select(run)


def test_a_student_trained_from_another_one_has_its_own_key() -> None:
    run = a_run(ROUNDS, JUDGED).after_round(2)
    data = TrainingSet("distilled", images=["i"], labels=["l"], teachers=["t"])
    model = run.posttrain.students[0]
    keys = {
        posttrain_key(
            run, student=StudentStart(model, 0, weights), data=data, test=EvaluationSplit("h", "x")
        )
        for weights in (None, "a", "b")
    }
    assert len(keys) == 3
