"""The report: complete, escaped, self-contained, and equal for equal input."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image as Picture

from distill_core.config.load import load_run
from flows.reports import charts, gallery, report, report_data, tables
from flows.reports.charts import Span
from tasks.run import Run
from tests.support.fabricate import CLASSES, finished_run, result

VOID = {"meta", "link", "img", "br", "hr", "input", "source"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Match it with the element it closes."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.words.append(data)

    @property
    def text(self) -> str:
        """Return the text with single spaces."""
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of every element of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a finished run."""
    return finished_run(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def html(run: Run) -> str:
    """Return its report, as stored."""
    return run.store.read(report.write_report(run)).decode()


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    """Return the report, parsed."""
    return Page(html)


def test_every_element_is_closed_and_the_file_is_small(page: Page, html: str) -> None:
    assert page.open == []
    assert len(html.encode()) < report.MAX_BYTES


def test_the_report_loads_nothing_and_runs_no_script(page: Page, html: str) -> None:
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert "default-src 'none'" in policy
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.all("link") == []
    addresses = [i["src"] for i in page.all("img")] + [s["srcset"] for s in page.all("source")]
    assert addresses
    assert all(address.startswith("data:image/") for address in addresses)
    assert not re.search(r"\son[a-z]+=", html)
    assert "@import" not in html
    assert all(link["href"].startswith("#") for link in page.all("a"))


def test_every_image_has_a_text_and_bytes_of_its_kind(page: Page) -> None:
    magic = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8", "image/svg+xml": b"<?xml"}
    for image in page.all("img"):
        assert len(image["alt"]) > 5
        kind, _, data = image["src"].removeprefix("data:").partition(";base64,")
        assert base64.b64decode(data).startswith(magic[kind])


def test_charts_are_well_formed_in_both_schemes_and_differ(page: Page) -> None:
    dark = [s["srcset"] for s in page.all("source")]
    light = [i["src"] for i in page.all("img") if i["src"].startswith("data:image/svg")]
    assert len(dark) == len(light) == 4  # losses, curriculum, post-train, timeline
    for address in dark + light:
        ElementTree.fromstring(base64.b64decode(address.partition(",")[2]))
    assert not set(dark) & set(light)


def test_names_are_escaped(page: Page, html: str) -> None:
    assert "<b>owl</b>" not in html
    assert "<for tests>" not in html
    assert all(name in page.text for name in CLASSES)


@pytest.mark.parametrize(
    "words",
    [
        "resnet18_small-w4 (teacher) all real images 91.5",
        "distilled images, soft labels 41.0 ± 1.4 42.0 ± 1.4 44.0 ± 1.4 +10.0 2",
        "distilled images, hard labels 21.0 ± 1.4",
        "6 images",
        "2030-05-06 07:06 to 2030-05-06 07:08 UTC",
        "step 2 crop area ≥ 0.50",
        "1 of 1 image shards",
        "distill run tiny.yaml --store",
        "first_layer_factor: 1.0",
    ],
)
def test_the_report_contains_each_expected_text(page: Page, words: str) -> None:
    assert words in page.text


def test_the_report_of_a_run_without_images_states_it(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    for name in ("recover", "relabel", "posttrain"):
        run.store.delete(run.path(f"{name}.manifest.json"))
    page = Page(run.store.read(report.write_report(run)).decode())
    assert "No images have been recovered yet" in page.text
    assert "not complete yet" in page.text
    assert "91.5" in page.text


def test_accuracy_rows_hold_mean_spread_and_gain_over_random_real() -> None:
    results = [result(which, seed) for which in ("hard_labels", "distilled") for seed in (0, 1)]
    alone = tables.accuracy_rows(results)
    assert [row.images_of for row in alone] == ["distilled", "hard_labels"]
    assert [row.gain for row in alone] == [None, None]
    rows = tables.accuracy_rows([*results, result("random_real", 0)])
    assert [row.gain for row in rows] == [11.0, None, -9.0]
    assert str(rows[0].last) == "41.0 ± 1.4"
    assert str(rows[1].last) == "30.0"  # one seed has no spread


def test_the_band_is_a_median_and_percentiles_over_batches() -> None:
    traces = [[{"step": 0, "loss": float(value)}] for value in range(11)]
    assert charts.band(traces, "loss") == ([0], [1.0], [5.0], [9.0])


def test_overlapping_shards_of_a_host_take_different_lanes() -> None:
    spans = [Span("recover", host, start, start + 2) for host in "ab" for start in (0, 1, 2)]
    lanes = charts.lanes(spans)
    assert [[span.start for span in lane] for lane in lanes] == [[0, 2], [1], [0, 2], [1]]


def test_equal_numbers_give_equal_charts() -> None:
    trace = [{"step": s, "low": 0.1, "lr": 0.1, "loss": 1.0} for s in range(3)]
    assert charts.loss_chart([trace]) == charts.loss_chart([trace])


def test_many_shards_become_a_timeline_of_pixels() -> None:
    spans = [Span("recover", "a", n, n + 1.0) for n in range(charts.MANY_BARS + 1)]
    assert charts.timeline_chart(spans).light.mime == "image/png"


def test_large_images_are_scaled_and_compressed() -> None:
    strip = gallery.strip([np.full((3, 224, 224), 99, np.uint8)] * 2)
    assert strip.mime == "image/jpeg"
    assert len(strip.data) < 20_000


def test_small_images_stand_side_by_side_unchanged(tmp_path: Path) -> None:
    first, second = (np.full((3, 8, 8), value, np.uint8) for value in (10, 200))
    (tmp_path / "strip.png").write_bytes(gallery.strip([first, second]).data)
    with Picture.open(tmp_path / "strip.png") as picture:
        assert picture.size == (17, 8)
        assert picture.getpixel((7, 0)) == (10, 10, 10)
        assert picture.getpixel((9, 0)) == (200, 200, 200)


def test_evenly_spread_samples_include_both_ends() -> None:
    assert report_data.spread(range(100), 4) == [0, 33, 66, 99]
    assert report_data.spread(range(3), 4) == [0, 1, 2]


def test_the_command_names_what_differs_from_the_preset_and_nothing_else() -> None:
    config = load_run("digits-demo", ["ipc=3", "recover.terms={cross_entropy: 1.0}"])
    changes = report.overrides(config)
    assert "ipc=3" in changes
    assert load_run("digits-demo", changes) == config
    assert report.overrides(load_run("digits-demo")) == []


def block(rows: range, hits: int) -> dict[str, Any]:
    """Return the counts of the student `s` on one block of a split of ten images."""
    count = {"images": len(rows), "top1": hits, "top5": len(rows)}
    ema = count | {"top1": 0}
    return {"weights": "s", "rows": [rows.start, rows.stop], "of": 10, "last": count, "ema": ema}


def test_the_validate_stage_replaces_last_and_ema_and_keeps_the_best() -> None:
    trained = result("distilled", 0)
    (judged,) = tables.final_results({"s": trained}, [block(range(8), 3), block(range(8, 10), 2)])
    assert judged["last"] == {"top1": 50.0, "top5": 100.0}
    assert judged["ema"] == {"top1": 0.0, "top5": 100.0}
    assert (judged["best"], judged["validated"]) == (trained["best"], 10)


def test_a_student_with_missing_validation_blocks_keeps_the_accuracy_of_its_training() -> None:
    trained = result("distilled", 0)
    blocks = [block(range(8), 3)]
    assert tables.final_results({"s": trained, "t": trained}, blocks) == [trained, trained]
