"""The report of a run: one self-contained HTML file, from manifests, markers and data files.

It has no scripts and fetches nothing: charts and images are data URIs, and its
Content-Security-Policy allows nothing else.
"""

from __future__ import annotations

import base64
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jinja2
import yaml

from distill_core.config.load import load_run, preset_names, to_yaml
from distill_core.config.schema import RunConfig
from distill_core.redaction import redacted
from distill_core.storage.records import seal_page
from flows.reports import charts, diff, gallery, report_data, tables
from flows.reports.charts import Chart, Image
from flows.reports.diff import Diff, write_diff
from flows.reports.report_data import ReportData
from flows.status.status import run_status
from tasks.run import Run
from tasks.series import version_of
from tasks.stages.names import StageId

MAX_BYTES = 8_000_000
TRACED_SHARDS = 50  # loss curves are taken from at most this many image shards


def write_report(run: Run) -> str:
    """Write the report of a run, and return its path in the store."""
    data = report_data.gather(run)
    is_version = version_of(run) is not None and run_status(run).has_manifest
    changes = write_diff(run) if is_version else None
    run.store.put(data.report, seal_page(render(data, changes)))
    return data.report


def render(data: ReportData, changes: Diff | None = None) -> str:
    """Return the report as HTML; sections whose stage is not complete are left out.

    Args:
        data: of the run.
        changes: from the previous version of its series, if there is one.
    """
    traces = report_data.traces(data, TRACED_SHARDS)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flows.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["uri"] = data_uri
    return environment.get_template("report.html.j2").render(
        run=data.run,
        header=report_data.header(data),
        grid=gallery.grid(data),
        evolutions=gallery.evolutions(traces, data.names),
        curves=_curves(data, traces),
        traced=len(traces),
        shards=len(data.markers.get(StageId("recover"), ())),
        changes=_changes_of(changes),
        accuracy=data.cells,
        columns=tables.HEADER,
        note=data.note,
        timeline=_timeline(data),
        costs=report_data.costs(data),
        command=redacted(command(data.run)),
        config=redacted(to_yaml(data.run.config)),
        versions=versions(),
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def _changes_of(changes: Diff | None) -> dict[str, Any] | None:
    """Return the lines and the tables of the section on the previous version."""
    if changes is None:
        return None
    return {
        "previous": changes.previous,
        "lines": diff.lines(changes),
        "tables": [
            (diff.SHARD_HEADER, diff.shard_cells(changes)),
            (diff.ACCURACY_HEADER, diff.accuracy_cells(changes)),
        ],
    }


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


def _curves(data: ReportData, traces: Sequence[Mapping[str, Any]]) -> list[Chart]:
    batches = [part["trace"] for trace in traces for part in trace["batches"] if part["trace"]]
    recovered = [charts.loss_chart(batches), charts.curriculum_chart(batches[0])] if batches else []
    trained = training_curves(data.results)
    return [*recovered, *([charts.training_chart(trained)] if trained else [])]


def _timeline(data: ReportData) -> Chart | None:
    spans = report_data.spans(data)
    return charts.timeline_chart(spans) if spans else None


PACKAGES = (
    "distill",
    "torch",
    "torchvision",
    "numpy",
    "pyarrow",
    "pydantic",
    "ray",
    "prefect",
)


def command(run: Run) -> str:
    """Return the command line that repeats a run."""
    name, store = run.config.preset, shlex.quote(run.store.url)
    if name not in preset_names():
        return f"distill run {shlex.quote(f'{name}.yaml')} --store {store}"
    words = ["distill", "run", name, *overrides(run.config), "--store"]
    return f"{' '.join(shlex.quote(word) for word in words)} {store}"


def overrides(config: RunConfig) -> list[str]:
    """Return the ``key=value`` pairs by which a config differs from its shipped preset."""
    shipped = load_run(config.preset).model_dump(mode="json")
    return list(_changes(shipped, config.model_dump(mode="json")))


def versions() -> list[tuple[str, str]]:
    """Return (package, version) of the libraries that results depend on, without importing them."""
    return [
        ("python", platform.python_version()),
        *((name, _version(name)) for name in PACKAGES),
    ]


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in new.items():
        before, path = old.get(key), f"{prefix}{key}"
        if before == value:
            continue
        if isinstance(before, dict) and isinstance(value, dict) and before.keys() <= value.keys():
            yield from _changes(before, value, f"{path}.")
        else:
            yield f"{path}={_flow(value)}"


def _flow(value: Any) -> str:
    """Return a value as one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
