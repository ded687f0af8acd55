"""The record of the readable names of a run's classes, and what shows them."""

from __future__ import annotations

import json
from pathlib import Path

from distill_core.label_spaces.words import ClassWords
from flows.reports import report, report_data
from flows.reports.diff import ClassDiff, Diff, lines
from tasks.gc.grammar import recognise
from tasks.stages.class_names import FILE, read_class_names, record_class_names
from tests.support.datasets import image_folder
from tests.support.fabricate import finished_run
from tests.support.pipeline import execute, tiny_run


def test_ingest_records_the_words_beside_the_dataset(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "data")
    (folder / "classes.tsv").write_text("cat\tdomestic cat, house cat\n")
    overrides = ("data.format=imagefolder", f"data.path={folder}", "data.num_classes=2")
    run = tiny_run(tmp_path / "store", *overrides)
    assert read_class_names(run) == ClassWords({})
    execute(run, "ingest")
    names = read_class_names(run)
    assert names.titles(("cat", "dog")) == ("domestic cat (cat)", "dog")
    name = recognise(run.path(FILE))
    assert name is not None
    assert name.role == "record"


def test_a_run_whose_classes_have_no_words_writes_no_record(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "data")
    overrides = ("data.format=imagefolder", f"data.path={folder}", "data.num_classes=2")
    run = tiny_run(tmp_path / "store", *overrides)
    execute(run, "ingest")
    assert not run.store.exists(run.path(FILE))


def test_a_damaged_record_leaves_the_ids(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    record_class_names(run, ClassWords({"cat": "house cat"}))
    assert read_class_names(run).title("cat") == "house cat (cat)"
    data = run.store.read(run.path(FILE))
    for damaged in (data[:-3], data.replace(b"house", b"mouse"), b"", b"\xff"):
        run.store.put(run.path(FILE), damaged)
        assert read_class_names(run).title("cat") == "cat"


def test_the_report_shows_names_beside_ids_and_escapes_them(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    record_class_names(run, ClassWords({"cat": "<script>alert(1)</script>", "dog & co": "hound"}))
    html = report.render(report_data.gather(run))
    assert "&lt;script&gt;alert(1)&lt;/script&gt; (cat)" in html
    assert "hound (dog &amp; co)" in html
    assert "<script>" not in html
    assert "&lt;b&gt;owl&lt;/b&gt;" in html  # has no other name


def test_a_diff_shows_names_beside_ids() -> None:
    classes = ClassDiff(("n1",), ("n2",), ("n3", "n4"), unchanged=0, test_changed=False)
    diff = Diff(
        run="s-v2",
        previous="s-v1",
        policy="keep",
        dataset=("a", "b"),
        config=(),
        classes=classes,
        shards=(),
        missing=(),
        accuracy=(),
        names=ClassWords({"n1": "tench, Tinca tinca", "n3": "goldfish", "n9": "not here"}),
    )
    text = lines(diff)
    assert "classes added: 1 (tench (n1))" in text
    assert "classes removed: 1 (n2)" in text
    assert "classes changed: 2 (goldfish (n3), n4)" in text
    tree = json.loads(json.dumps(diff.to_json()))
    assert tree["class_names"] == {"n1": "tench, Tinca tinca", "n3": "goldfish"}
    assert tree["classes"]["added"] == ["n1"]
    assert "names" not in tree
