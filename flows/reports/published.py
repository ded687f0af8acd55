"""The accuracy table and the head of the report of a run, as Prefect shows them."""

from __future__ import annotations

from dataclasses import dataclass

from flows.reports import report_data, tables


@dataclass(frozen=True)
class Published:
    """Plain data, which can travel from a job to its flow run."""

    name: str  # of the run
    rows: list[dict[str, str]]  # of the accuracy table, by the titles of its columns
    note: str  # below the table
    text: str  # Markdown


def contents(data: report_data.ReportData) -> Published:
    """Return what is shown of a run."""
    rows = [dict(zip(tables.HEADER, cells, strict=True)) for cells in data.cells]
    name = data.run.name
    header = tables.markdown_table(("", name), report_data.header(data))
    accuracy = tables.markdown_table(tables.HEADER, data.cells)
    address = data.run.store.uri(data.report)
    parts = (f"# {name}", header, "## Accuracy", accuracy, data.note, f"Report: {address}")
    return Published(name, rows, data.note, "\n\n".join(parts))
