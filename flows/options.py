"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

HOW = "How to run"  # title of the group in --help
Preset = Annotated[str, typer.Argument(metavar="PRESET", help="A shipped preset, or a .yaml file.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of a run in the store.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the config, e.g. ipc=50."),
]
StoreUrl = Annotated[
    str,
    typer.Option("--store", help="Folder or s3://bucket/prefix."),
]
Local = Annotated[
    bool,
    typer.Option("--local", help="Use neither Prefect nor Ray.", rich_help_panel=HOW),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Actors, or processes if local.", rich_help_panel=HOW),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="[cpu|cuda]", help="Never chosen silently.", rich_help_panel=HOW),
]
NumGpus = Annotated[
    float | None,
    typer.Option(min=0, help="Ray GPUs per actor: 1, 0.5 or 0.25.", rich_help_panel=HOW),
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="host:port of a cluster; default: start a local one.", rich_help_panel=HOW),
]
SingleWriter = Annotated[
    bool,
    typer.Option(
        "--single-writer", help="Accept a store without conditional create.", rich_help_panel=HOW
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run, and stop.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_STORE = "./out"
