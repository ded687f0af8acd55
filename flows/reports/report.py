"""The report of a run: one self-contained HTML file, made from manifests, markers and files alone.

No script, nothing fetched: charts and images are data URIs, and a Content-Security-Policy says so.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import jinja2

from distill_core.config.load import to_yaml
from flows.reports import charts, gallery, report_data, reproduce, tables
from flows.reports.charts import Chart, Image
from flows.reports.report_data import ReportData
from tasks.run import Run
from tasks.stages.names import StageId

MAX_BYTES = 8_000_000
TRACED_SHARDS = 50  # loss curves are taken from at most this many image shards


def write_report(run: Run) -> str:
    """Make a run's report anew and return its path in the store."""
    found = report_data.gather(run)
    run.store.put(found.report, render(found).encode())
    return found.report


def render(found: ReportData) -> str:
    """Return the report as HTML; sections whose stage is not complete are left out."""
    traces = report_data.traces(found, TRACED_SHARDS)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flows.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["uri"] = data_uri
    return environment.get_template("report.html.j2").render(
        run=found.run,
        header=report_data.header(found),
        grid=gallery.grid(found),
        evolutions=gallery.evolutions(traces),
        curves=_curves(found, traces),
        traced=len(traces),
        shards=len(found.markers.get(StageId("recover"), ())),
        accuracy=found.cells,
        columns=tables.HEADER,
        note=found.note,
        timeline=_timeline(found),
        costs=report_data.costs(found),
        command=reproduce.command(found.run),
        config=to_yaml(found.run.config),
        versions=reproduce.versions(),
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def data_uri(image: Image) -> str:
    """Return an image as a ``data:`` URI."""
    return f"data:{image.mime};base64,{base64.b64encode(image.data).decode()}"


def training_curves(
    results: Sequence[Mapping[str, Any]],
) -> dict[str, list[tuple[float, float]]]:
    """Return (epoch, mean top-1 over seeds) by student and set, for the epochs evaluated."""
    points: dict[str, dict[float, list[float]]] = {}
    for result in results:
        name = f"{result['student']}, {tables.SETS.get(result['set'], result['set'])}"
        for row in result["curve"]:
            if row.get("top1") is not None:
                points.setdefault(name, {}).setdefault(row["epoch"], []).append(row["top1"])
    return {
        name: [(epoch, sum(values) / len(values)) for epoch, values in sorted(by_epoch.items())]
        for name, by_epoch in points.items()
    }


def _curves(found: ReportData, traces: Sequence[Mapping[str, Any]]) -> list[Chart]:
    batches = [part["trace"] for trace in traces for part in trace["batches"] if part["trace"]]
    recovered = [charts.loss_chart(batches), charts.curriculum_chart(batches[0])] if batches else []
    trained = training_curves(found.results)
    return [*recovered, *([charts.training_chart(trained)] if trained else [])]


def _timeline(found: ReportData) -> Chart | None:
    spans = report_data.spans(found)
    return charts.timeline_chart(spans) if spans else None
