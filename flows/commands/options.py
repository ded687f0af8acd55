"""Arguments and options that several commands share, alone and in groups.

The groups are spread over the parameters of a command by `flows.commands.groups.grouped`. Names
are checked when they are parsed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill_core.naming.names import check_name
from flows.commands.groups import grouped as grouped
from tasks.policy import TeacherPolicy

if TYPE_CHECKING:
    from flows.orchestration.parameters import Parameters
    from tasks.execution import Execution

DEFAULT_STORE = "./out"
PANEL = "How to run"  # title of the placement options in --help


def checked(what: str) -> Callable[[str | None], str | None]:
    """Return a callback of typer that refuses a name that is not allowed."""
    return lambda name: name if name is None else check_name(what, name)


def _workers(value: str | None) -> int | str | None:
    """Return a number of workers, or a range, as `tasks.worker_range.parse_workers`."""
    from tasks.worker_range import parse_workers

    try:
        return parse_workers(value)
    except ValueError as error:
        raise typer.BadParameter(f"{value!r}: {error}.") from None


Preset = Annotated[
    str, typer.Argument(metavar="PRESET", help="Name of a shipped preset, or path of a .yaml file.")
]
Source = Annotated[
    str,
    typer.Argument(
        metavar="PRESET|SOURCE",
        help="Name of a shipped preset, path of a .yaml file, or your own images: a folder, an "
        "archive or a bucket. Write ./NAME for a folder that is called like a preset.",
    ),
]
RunName = Annotated[
    str,
    typer.Argument(metavar="RUN", callback=checked("run"), help="Name of a run in the store."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the config, e.g. ipc=50."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the config; may be repeated."),
]
StoreUrl = Annotated[
    str, typer.Option("--store", help="Folder or s3://bucket/prefix that holds the runs.")
]
DeployedStore = Annotated[
    str | None,
    typer.Option(
        "--store", help="Folder or s3://bucket/prefix. Default: the store of the deployment."
    ),
]
Group = Annotated[
    str | None,
    typer.Option(
        "--deployment",
        metavar="GROUP",
        callback=checked("deployment"),
        help="Deployments of a group, e.g. distill/new-run-GROUP.",
    ),
]
NewName = Annotated[
    str | None,
    typer.Option(
        "--name",
        callback=checked("run"),
        help="Name of the run. Default: preset and config hash.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Make the checks, print the shards that would run, exit.")
]
ImageNetDemo = Annotated[
    bool,
    typer.Option(
        "--imagenet",
        help="Distil ten classes of ImageNet-1K under a real teacher, without a dataset.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@dataclass(frozen=True)
class ConfigOptions:
    """A preset and the changes to it."""

    preset: Preset
    overrides: Overrides = None
    set_: Set = None

    @property
    def changes(self) -> list[str]:
        """Return all ``key=value`` pairs; those of --set come last and win."""
        return [*(self.overrides or []), *(self.set_ or [])]


@dataclass(frozen=True)
class SeriesOptions:
    """The series of a new version, and its teacher."""

    series: Annotated[
        str | None,
        typer.Option(
            callback=checked("series"),
            help="Name of the series; its runs are SERIES-v0001, SERIES-v0002, ... "
            "Default: the preset, or the name of the schedule.",
        ),
    ] = None
    policy: Annotated[
        TeacherPolicy,
        typer.Option(
            "--policy",
            help="Teacher of the new version: keep the previous one, fine_tune it on the new data, "
            "or squeeze_again from the start.",
        ),
    ] = "keep"
    if_changed: Annotated[
        bool,
        typer.Option(
            "--if-changed",
            help="List the source first, and do nothing, without Ray, if it has not changed since "
            "the last version.",
        ),
    ] = False


@dataclass(frozen=True)
class PlacementOptions:
    """Options of execution; the names are those of `tasks.execution.Placement`. None: not given."""

    local: Annotated[
        bool | None,
        typer.Option(
            "--local",
            help="Run in processes of this machine, without Prefect and Ray.",
            rich_help_panel=PANEL,
        ),
    ] = None
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="[N|MIN:MAX|auto]",
            callback=_workers,
            help="N: at most so many Ray actors, or processes with --local. MIN:MAX or auto: nodes "
            "may join the cluster; a stage waits until MIN (1) actors have room, and takes more as "
            "they come. Default: as many as fit the cluster, or 1 with --local.",
            rich_help_panel=PANEL,
        ),
    ] = None
    device: Annotated[
        str | None,
        typer.Option(
            metavar="[cpu|cuda]",
            help="Device for all stages. Default: cpu. There is no automatic fallback.",
            rich_help_panel=PANEL,
        ),
    ] = None
    num_cpus: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Ray CPUs that each actor reserves; used for scheduling, not a limit.",
            rich_help_panel=PANEL,
        ),
    ] = None
    num_gpus: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Ray GPUs that each actor reserves: whole GPUs, 0.5 or 0.25.",
            rich_help_panel=PANEL,
        ),
    ] = None
    memory_gb: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="GB of memory that each Ray actor reserves on its node; 0: none. Default: an "
            "estimate for each stage.",
            rich_help_panel=PANEL,
        ),
    ] = None
    groups: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Batches that recover optimises in one launch. Default: chosen by their size.",
            rich_help_panel=PANEL,
        ),
    ] = None
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="host:port of a Ray cluster. Default: start a local one.", rich_help_panel=PANEL
        ),
    ] = None
    submit: Annotated[
        str | None,
        typer.Option(
            metavar="http://HEAD:8265",
            help="Run as a job of a Ray cluster, from a machine that is no node of it, and follow "
            "it. The address of the head's dashboard.",
            rich_help_panel=PANEL,
        ),
    ] = None
    job_timeout_seconds: Annotated[
        float | None,
        typer.Option(
            "--shard-timeout",
            metavar="SECONDS",
            min=0.001,
            help="Stop a shard that runs longer than this, and try it again.",
            rich_help_panel=PANEL,
        ),
    ] = None
    checkpoint_every: Annotated[
        str | None,
        typer.Option(
            metavar="INTERVAL",
            help="Keep the state of a teacher in training this often, e.g. '10 minutes' or "
            "'500 steps', besides after every epoch.",
            rich_help_panel=PANEL,
        ),
    ] = None
    outage_seconds: Annotated[
        float | None,
        typer.Option(
            "--outage-timeout",
            metavar="SECONDS",
            min=0.001,
            help="How long to wait for a store that is away. Default: 1800.",
            rich_help_panel=PANEL,
        ),
    ] = None
    wait_for_workers_seconds: Annotated[
        float | None,
        typer.Option(
            "--workers-timeout",
            metavar="SECONDS",
            min=0.001,
            help="How long a stage waits for nodes: for the first ones with a range of workers, "
            "and while all of its workers are lost. Default: 1800.",
            rich_help_panel=PANEL,
        ),
    ] = None
    allow_missing: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Number of failed shards that later stages may go on without. Default: 0.",
            rich_help_panel=PANEL,
        ),
    ] = None
    single_writer: Annotated[
        bool | None,
        typer.Option(
            "--single-writer",
            help="Accept a store without conditional create; start only one driver on it.",
            rich_help_panel=PANEL,
        ),
    ] = None

    @property
    def given(self) -> dict[str, Any]:
        """Return the options that were given."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def execution(self, store: str) -> Execution:
        """Return where and how jobs run; options that were not given keep their defaults.

        Raises:
            ConfigError: the address cannot be a store, or a value is out of range.
        """
        from flows.runs.pipeline import execution_of

        return execution_of({"store": store, **self.given})

    def parameters(self, store: str | None) -> Parameters:
        """Return the parameters of a flow; the deployment supplies those that were not given.

        Raises:
            ConfigError: the address cannot be a store, or a value is out of range.
        """
        self.execution(store or DEFAULT_STORE)
        return {"execution": self.given} | ({"store": store} if store else {})
