"""`--submit`: the commands run, resume and redistill as jobs of a Ray cluster."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distill_core.errors import ConfigError
from distill_core.redaction import sanitised
from flows import terminal

if TYPE_CHECKING:
    from flows.commands.options import PlacementOptions
    from flows.runs.request import RunRequest

GRACE_SECONDS = 9.5  # to stop the job after a signal


def refuse(options: Mapping[str, bool]) -> None:
    """Refuse options that need the run on this machine.

    Args:
        options: whether each was given, by its name.

    Raises:
        ConfigError: one was given.
    """
    for name, is_given in options.items():
        if is_given:
            raise ConfigError(
                f"{name}: not with --submit, as the run takes place in the cluster. Leave it out, "
                "or run the command on a node of the cluster."
            )


def submit_config(
    preset: str, changes: list[str], placement: PlacementOptions, store: str, **request: Any
) -> None:
    """Submit a request with the config of a preset or a YAML file, and follow its job.

    Args:
        preset: name or path.
        changes: ``key=value``.
        placement: where and how jobs run.
        store: of the run.
        request: the fields of `RunRequest` besides these.

    Raises:
        ConfigError: it is a dataset, whose facts this machine may not see; or a wrong setting.
        DistillError: what the job has ended with.
    """
    from flows.orchestration.parameters import resolved, with_absolute_paths
    from flows.runs.argument import check_is_config

    check_is_config(
        preset,
        command=f"{request['command']} --submit",
        reason="the cluster may not see the dataset, whose facts choose the sizes",
    )
    config, local = with_absolute_paths(resolved(preset, changes))
    submit(placement, store, local, config=config, **request)


def submit(
    placement: PlacementOptions, store: str, local: Mapping[str, str] | None = None, **request: Any
) -> None:
    """Submit a request and follow its job; see `submit_config`.

    Args:
        placement: where and how jobs run.
        store: of the run.
        local: paths of this machine in the config, by key.
        request: the fields of `RunRequest` besides these.
    """
    from distill_core.storage.store import Store
    from flows.commands.trigger import warn_of_local
    from flows.runs.request import RunRequest
    from flows.runs.shard_selection import check_numbers

    execution = placement.execution(store)
    check_numbers(request.get("shards"), and_later=request.get("and_later", False))
    settings = execution.model_dump(exclude={"store", "worker_memory"}, exclude_unset=True)
    store = Store(store).url
    warn_of_local(local or {}, store)
    _follow(RunRequest.model_validate({"store": store, "execution": settings, **request}))


def _follow(request: RunRequest) -> None:
    from flows.runs.submit import run_as_job
    from tasks.pools.signals import terminable

    def show(line: str) -> None:
        terminal.print_lines(line)
        sys.stdout.flush()

    def notify(text: str) -> None:
        print(f"distill: {sanitised(text)}", file=sys.stderr, flush=True)

    with terminable(GRACE_SECONDS, until_exit=True):
        run_as_job(request, show=show, on_event=lambda event: None, notify=notify)
