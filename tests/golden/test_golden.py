"""Numerics are equal to the golden files; after an intended change, `make golden` rewrites them."""

from __future__ import annotations

import json

import pytest

from distill_core.config.fields import Precision
from distill_core.config.load import preset_names
from tests.golden.methods import numbers_of
from tests.golden.numbers import GOLDEN
from tests.golden.update import config_defaults
from tests.support.golden_files import number_file

# float64 to nine digits. float32 sums in another order on another instruction set, and twenty
# steps amplify that: losses agree to one part in a thousand.
TOLERANCE: dict[Precision, float] = {"float64": 1e-9, "float32": 1e-3}


@pytest.mark.parametrize("precision", list(TOLERANCE))
@pytest.mark.parametrize("stage", sorted(GOLDEN))
def test_twenty_steps_give_the_golden_numbers(stage: str, precision: Precision) -> None:
    golden = json.loads(number_file(stage).read_text())[precision]
    assert len(golden) == 20
    assert GOLDEN[stage](precision) == pytest.approx(golden, rel=TOLERANCE[precision])


METHODS = json.loads(number_file("methods").read_text())
# Losses of float64 agree to six digits. A pixel at the edge of rounding may turn by one, which the
# mean of an image shows at the third decimal, and what teacher and student say of it likewise.
WITHIN = {
    "losses": {"rel": 1e-6},
    "pixels": {"abs": 0.05},
    "labels": {"rel": 1e-3},
    "student": {"rel": 1e-3},
    "average": {"rel": 1e-3},
}


def test_every_preset_has_golden_numbers_and_no_other_has() -> None:
    assert set(METHODS) == set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_shrunk_to_tiny_data_gives_its_golden_numbers(name: str) -> None:
    made = numbers_of(name)
    assert made.keys() == METHODS[name].keys() == WITHIN.keys()
    for part, values in made.items():
        assert values == pytest.approx(METHODS[name][part], **WITHIN[part]), part


@pytest.mark.parametrize(
    ("name", "override", "part"),
    [
        ("fadrm-in1k", "recover.lr=0.3", "pixels"),
        ("fadrm-in1k", "recover.first_layer_factor=9", "losses"),
        ("fadrm-in1k", "recover.residual=0.4", "losses"),
        ("fadrm-in1k", "recover.mosaic.order=easiest", "pixels"),
        ("fadrm-in1k", "recover.segments=[{steps: 500, side: 196}, {steps: 1500}]", "losses"),
        ("fadrm-in1k", "relabel.crop=[0.5, 1.0]", "labels"),
        ("fadrm-in1k", "relabel.batch_statistics=2", "labels"),
        ("fadrm-in1k", "posttrain.temperature=4", "student"),
        ("fadrm-in1k", "posttrain.schedule.zeta=1", "student"),
        ("fadrm-in1k", "posttrain.optimizer.weight_decay=10", "student"),
        ("lpqld-in1k", "relabel.topk=25", "labels"),
        ("lpqld-in1k", "relabel.prune=0.95", "student"),
        ("lpqld-in1k", "posttrain.rest=mean", "student"),
        ("lpld-in1k", "relabel.prune=0.9", "student"),
        ("cudd-in1k", "rounds.warm_lr=0.01", "losses"),
        ("cudd-in1k", "recover.terms.adversarial=2.0", "losses"),
        ("delt-in1k", "recover.late_groups=4", "losses"),
        ("edc-cifar10", "posttrain.ema_decay=0.9", "average"),
        ("edc-cifar10", "recover.convolutions.patch=2", "losses"),
        ("gvbsm-cifar10", "recover.convolutions.drop_rate=0.2", "losses"),
        ("gvbsm-cifar10", "recover.statistics_decay=0.4", "losses"),
    ],
)
def test_a_changed_value_of_a_preset_changes_its_numbers(
    name: str, override: str, part: str
) -> None:
    made = numbers_of(name, override)[part]
    assert made != pytest.approx(METHODS[name][part], **WITHIN[part])


def test_no_default_changes_because_keys_leave_defaults_out() -> None:
    """A new setting only joins the file; for a changed default, bump NUMERICS as well."""
    assert config_defaults() == json.loads(number_file("defaults").read_text())


@pytest.mark.parametrize("override", ["recover.terms.adversarial=2.0", "rounds.epochs=300"])
def test_rounds_are_shrunk_with_a_student_between_them(override: str) -> None:
    rounds = (
        "recover.ipc_range=10",
        "recover.init=judged",
        "recover.terms={cross_entropy: 1.0, start_distance: 1.0, adversarial: 1.0}",
        "rounds={starts: [20], student: {name: resnet18}, epochs: 150, warm_lr: 0.0005}",
    )
    first, other = (numbers_of("sre2l-in1k", *rounds, *more) for more in ((), (override,)))
    third = len(first["losses"]) // 3
    assert first["losses"][:third] == other["losses"][:third]  # nobody is asked in the first round
    # How long a student is trained is a size, and shrunk.
    changed = first["losses"][third:] != other["losses"][third:]
    assert changed == ("adversarial" in override)
