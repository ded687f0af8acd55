"""The label space of a distilled set in its report."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.config.load import load_run
from distill_core.data.index import build_index, number_classes
from distill_core.data.index_commit import commit_index
from distill_core.data.index_table import SCHEMA
from distill_core.label_spaces.facts import CIFAR10
from distill_core.storage.store import Store
from flows.reports.report_data import gather, header
from tasks.run import Run, create_run
from tasks.stages.dataset_record import record_dataset


def run_over(folder: Path, classes: tuple[str, ...], *overrides: str) -> Run:
    """Return a run whose dataset has some classes."""
    store, config = Store(str(folder)), load_run("digits-demo", overrides)
    run, empty = create_run(config, store, "small"), SCHEMA.empty_table()
    index = build_index("some", number_classes(classes), empty, empty)
    commit_index(store, index)
    record_dataset(run, index)
    return run


@pytest.mark.parametrize(
    ("classes", "overrides", "expected"),
    [
        (CIFAR10, (), "cifar10"),
        (CIFAR10[::-1], (), "cifar10"),
        (CIFAR10[1:], (), None),
        (("a", "b"), ("data.label_space=cifar10", "data.num_classes=10"), "cifar10"),
    ],
)
def test_the_report_names_the_space_of_the_config_or_that_of_the_classes(
    classes: tuple[str, ...], overrides: tuple[str, ...], expected: str | None, tmp_path: Path
) -> None:
    run = run_over(tmp_path, classes, *overrides)
    assert dict(header(gather(run, ()))).get("label space") == expected


def test_before_the_dataset_is_known_no_space_is_named(tmp_path: Path) -> None:
    run = create_run(load_run("digits-demo"), Store(str(tmp_path)), "small")
    assert "label space" not in dict(header(gather(run, ())))
