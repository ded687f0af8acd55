"""The command that writes a config for a dataset of one's own: init."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from flows.commands.options import Overrides

STDOUT = "-"


def init(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Folder, .tar or .parquet file, or s3://bucket/prefix."
        ),
    ],
    overrides: Overrides = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File to write, which ends in .yaml; - prints it. Default: NAME.yaml, named after "
            "the source.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE if it exists.")] = False,
    device: Annotated[
        str, typer.Option(metavar="[cpu|cuda]", help="Device for which sizes are chosen.")
    ] = "cpu",
) -> None:
    """Write a config for your own images, e.g. `distill init flowers`.

    It looks at names and a sample of images, and gives a reason for every value. Start it with
    `distill run flowers.yaml`; `distill run flowers` makes the same choices without a file.
    """
    from distill_core.data.detection.source import name_of_source
    from flows import terminal
    from flows.commands.options import DEFAULT_STORE
    from flows.runs.argument import recommend_for
    from flows.runs.pipeline import execution_of

    path = f"{name_of_source(source)}.yaml" if output is None else output
    if path != STDOUT:
        _check_free(path, force=force)
    execution = execution_of({"store": DEFAULT_STORE, "device": device})
    found = recommend_for(source, overrides or [], execution)
    text = found.text(source)
    if path == STDOUT:
        terminal.print_lines(text.rstrip())
        return
    _write(path, text, force=force)
    terminal.print_lines(*found.lines(), f"Wrote {path}. Start it with `distill run {path}`.")


def _check_free(path: str, *, force: bool) -> None:
    """Refuse a file that cannot be written, before the images are looked at.

    Raises:
        ConfigError: it exists, has another ending, or its folder is not there.
    """
    from distill_core.errors import ConfigError

    folder = os.path.dirname(path) or "."
    if not path.endswith((".yaml", ".yml")):
        raise ConfigError(f"--output {path}: expected a name that ends in .yaml. Add the ending.")
    if os.path.isdir(path):
        raise ConfigError(f"--output {path}: a folder, expected a file. Add a name.")
    if os.path.lexists(path) and not force:
        raise ConfigError(f"{path}: exists. Use --force to overwrite it, or -o for another file.")
    if not os.path.isdir(folder):
        raise ConfigError(f"--output {path}: no folder {folder}. Create it, or correct the path.")


def _write(path: str, text: str, *, force: bool) -> None:
    """Write a file.

    Raises:
        ConfigError: it cannot be written, or exists by now.
    """
    from distill_core.errors import ConfigError

    try:
        with open(path, "w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror or error}). Choose another file with -o, "
            "or print the config with -o -."
        ) from None
