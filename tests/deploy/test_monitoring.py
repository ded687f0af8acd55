"""The dashboard, the alerts and the page on monitoring name metrics that exist, and no others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tasks.runs.ray_metrics import METRICS, exported
from tests.support.repository import ROOT

FOLDER = ROOT / "deploy" / "monitoring"
NAMES = {exported(name): metric for name, metric in METRICS.items()}
USED = re.compile(r"\bray_distill_\w+")
LABELS = {"run", "stage", "kind"}


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    board: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    return board


def rules() -> list[dict[str, Any]]:
    """Return the alerts."""
    (group,) = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def queries() -> Iterator[str]:
    """Yield every query of the dashboard and of the alerts."""
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (variable.get("definition", "") for variable in dashboard()["templating"]["list"])
    yield from (rule["expr"] for rule in rules())


def test_every_query_names_metrics_that_are_published_and_none_is_left_out() -> None:
    used = {name for query in queries() for name in USED.findall(query)}
    assert used == NAMES.keys()
    for query in queries():
        for labels in re.findall(r"by \(([^)]*)\)", query):
            assert set(labels.split(", ")) <= LABELS, query
        for name in USED.findall(query):  # a rate of a gauge, or a bare counter, means nothing
            rated = re.search(rf"(rate|increase)\({name}\b", query) is not None
            assert rated == (NAMES[name].type == "counter"), query
        assert query.count("(") == query.count(")"), query


def test_the_dashboard_can_be_imported() -> None:
    board = dashboard()
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= board.keys()
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers) == 8
    cells = set[tuple[int, int]]()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        columns = range(place["x"], place["x"] + place["w"])
        rows = range(place["y"], place["y"] + place["h"])
        taken = {(x, y) for x in columns for y in rows}
        assert not cells & taken, panel["title"]
        cells |= taken
        assert panel["type"] in ("timeseries", "gauge")
        assert all(target["legendFormat"] for target in panel["targets"])
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert {each["name"] for each in board["templating"]["list"]} == {"datasource", "run"}


def test_every_alert_leads_to_a_section_of_the_runbook() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    for rule in rules():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (page, anchor in anchors) == ("docs/runbook.md", True), rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= LABELS


def test_the_page_lists_every_metric_and_every_file() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert set(USED.findall(text)) == NAMES.keys()
    for path in FOLDER.iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in text, path.name


def test_prometheus_reads_the_list_of_nodes_that_ray_writes() -> None:
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    tree = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    (job,) = tree["scrape_configs"]
    assert job["file_sd_configs"] == [{"files": [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]}]
    assert tree["rule_files"] == ["alerts.yaml"]
    monitor = yaml.safe_load((FOLDER / "pod-monitor.yaml").read_text())
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"
