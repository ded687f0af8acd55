"""Arguments and options that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, get_type_hints

import typer

from tasks.policy import TeacherPolicy

if TYPE_CHECKING:
    from tasks.execution import Execution

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
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run, and stop.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FailedOnly = Annotated[bool, typer.Option("--failed-only", help="Only the shards that failed.")]
ShardList = Annotated[
    str | None, typer.Option(metavar="LIST", help="Class shards by number: 3,17-20.")
]
DEFAULT_STORE = "./out"
DEFAULT_DEPLOYMENT = "default"
PolicyOption = Annotated[
    TeacherPolicy, typer.Option("--policy", help="For the teacher of the version before.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A change to the config, like KEY=VALUE."),
]
DeployedStore = Annotated[
    str | None,
    typer.Option("--store", help="Default: the deployment's own store."),
]
DeploymentName = Annotated[str, typer.Option("--deployment", help="Name of the deployments.")]


class How(TypedDict, total=False):
    """Options of every command that runs stages; keys are those of `tasks.execution.Execution`."""

    local: Annotated[
        bool | None,
        typer.Option("--local", help="Use neither Prefect nor Ray.", rich_help_panel=HOW),
    ]
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Actors, or processes if local.", rich_help_panel=HOW),
    ]
    device: Annotated[
        str | None,
        typer.Option(metavar="[cpu|cuda]", help="Never chosen silently.", rich_help_panel=HOW),
    ]
    num_cpus: Annotated[
        float | None,
        typer.Option(min=0, help="Ray CPUs per actor; bookkeeping.", rich_help_panel=HOW),
    ]
    num_gpus: Annotated[
        float | None,
        typer.Option(min=0, help="Ray GPUs per actor: 1, 0.5 or 0.25.", rich_help_panel=HOW),
    ]
    groups: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Batches of recover in one launch; default: by their size.",
            rich_help_panel=HOW,
        ),
    ]
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="host:port of a cluster; default: start a local one.", rich_help_panel=HOW
        ),
    ]
    job_timeout_seconds: Annotated[
        float | None,
        typer.Option(
            "--shard-timeout",
            metavar="SECONDS",
            min=0.001,
            help="Kill and requeue a shard that runs longer.",
            rich_help_panel=HOW,
        ),
    ]
    allow_missing: Annotated[
        int | None,
        typer.Option(
            min=0, help="Go on without at most so many failed shards.", rich_help_panel=HOW
        ),
    ]
    single_writer: Annotated[
        bool | None,
        typer.Option(
            "--single-writer",
            help="Accept a store without conditional create.",
            rich_help_panel=HOW,
        ),
    ]


def with_how(command: Callable[..., None]) -> Callable[..., None]:
    """Show typer the options of `How` in place of a command's ``**how: Unpack[How]``."""
    hints = get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for name, hint in get_type_hints(How, include_extras=True).items()
    ]

    def shown(*arguments: Any, **options: Any) -> None:
        command(*arguments, **options)

    shown.__name__, shown.__doc__ = command.__name__, command.__doc__
    shown.__annotations__ = {parameter.name: parameter.annotation for parameter in own + shared}
    shown.__signature__ = inspect.Signature(own + shared)  # type: ignore[attr-defined]
    return shown


def execution(store: str, how: Mapping[str, Any]) -> Execution:
    """Return where and how jobs run; what was not said keeps its default."""
    from flows.runs.pipeline import execution_of

    said = {key: value for key, value in how.items() if value is not None}
    return execution_of({"store": store, **said})
