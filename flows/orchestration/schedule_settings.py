"""Settings of schedules, in the store of their deployment: config, series, policy and execution.

A schedule on a Prefect server has a name and times, and no parameters: Prefect 3.8 deletes the
parameters of a schedule that is switched off or on, with its own page, too. The name is kept, and
leads to ``schedules/<deployment>/<name>.yaml``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, get_args

import yaml

from distill_core.config.addresses import check_config
from distill_core.config.load import parse_yaml, validate_run
from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError, DataError, StorageError, one_line
from distill_core.naming.names import check_name
from distill_core.storage.records import BLANK, NAME, check_seal, seal
from distill_core.storage.store import Store
from flows.runs.pipeline import execution_of
from tasks.execution import Placement
from tasks.gc.grammar import SCHEDULES
from tasks.policy import TeacherPolicy
from tasks.series import version_name

VERSION = 1
REMEDY = (
    "Make the schedule again: `distill schedule PRESET [KEY=VALUE ...] --name NAME --cron ...`."
)


@dataclass(frozen=True)
class ScheduleSettings:
    """What a schedule starts."""

    series: str
    policy: TeacherPolicy
    config: RunConfig
    store: str | None  # of the series; None: the store of the deployment
    execution: dict[str, Any]  # settings that replace those of the deployment
    if_changed: bool = False  # a listing of the source decides whether anything is started

    def placement(self, default: Placement) -> Placement:
        """Return the execution settings of a run, from those of the deployment and these."""
        given = default.model_dump(exclude_unset=True)
        return Placement.model_validate({**given, **self.execution})

    def to_yaml(self, place: str) -> bytes:
        """Return the settings as they are stored at a path of the store."""
        tree = {
            "version": VERSION,
            "place": place,
            "series": self.series,
            "policy": self.policy,
            "store": self.store,
            "execution": self.execution,
            **({"if_changed": True} if self.if_changed else {}),
            "config": self.config.model_dump(mode="json"),
        }
        return seal(f"# {NAME}: {BLANK}\n{yaml.safe_dump(tree, sort_keys=False, width=100)}")

    @classmethod
    def from_yaml(cls, data: bytes, place: str, *, where: str) -> ScheduleSettings:
        """Read the settings that are stored at a path of the store.

        Raises:
            DataError: they are damaged, were edited by hand, or belong to another schedule.
        """
        try:
            if not check_seal(data, where=where, remedy=REMEDY):
                raise ValueError("they have no digest")
            tree = parse_yaml(data.decode(), where=where)
            if tree.pop("place") != place:
                raise ValueError("they belong to another schedule")
            if tree.pop("version") != VERSION or tree["policy"] not in get_args(TeacherPolicy):
                raise ValueError(f"expected version {VERSION} and a policy")
            return cls(config=validate_run(tree.pop("config"), where=where), **tree)
        except (ConfigError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{where}: not settings of a schedule ({error}). {REMEDY}") from None


def write(home: Store, deployment: str, name: str, settings: ScheduleSettings) -> None:
    """Store the settings of a schedule, in place of earlier ones, and read them back.

    Args:
        home: store of the deployment.
        deployment: name of the deployment.
        name: of the schedule.
        settings: what it starts.

    Raises:
        ConfigError: a value is wrong, or the store is a folder that does not exist here.
        StorageError: the store cannot be written, or returns something else.
    """
    check_config(settings.config)
    check_name("series", settings.series)
    check_name("run", version_name(settings.series, 1))
    execution_of({**settings.execution, "store": settings.store or home.url})
    if "://" not in home.url and not os.path.isdir(home.url):
        raise ConfigError(
            f"{home.url}: the settings of a schedule are kept in the store of its deployment, but "
            "this machine has no such folder. Run the command on the machine that serves the "
            "deployment (create the folder if this is it), or deploy with object storage."
        )
    path = path_of(deployment, name)
    data = settings.to_yaml(path)
    home.put(path, data)
    if home.read(path) != data:
        raise StorageError(
            f"{home.uri(path)}: the store returns other settings than were written. Check that no "
            "other command changes this schedule, and run this one again."
        )


def read(home: Store, deployment: str, name: str) -> ScheduleSettings:
    """Return the settings of a schedule.

    Raises:
        ConfigError: there are none.
        DataError: they are damaged.
    """
    path = path_of(deployment, name)
    if not home.exists(path):
        raise ConfigError(
            f"{home.uri(path)}: the schedule {name!r} has no settings there. Make it again: "
            f"`distill schedule PRESET [KEY=VALUE ...] --name {name} --cron ...`."
        )
    return ScheduleSettings.from_yaml(home.read(path), path, where=home.uri(path))


def exist(home: Store, deployment: str, name: str) -> bool:
    """Return whether the store has settings of a schedule, damaged ones included."""
    return home.exists(path_of(deployment, name))


def delete(home: Store, deployment: str, name: str) -> None:
    """Delete the settings of a schedule that was removed; missing ones are no error."""
    if exist(home, deployment, name):
        home.delete(path_of(deployment, name))


def try_delete(home: Store, deployment: str, name: str) -> str | None:
    """Delete the settings of a schedule that was removed; return a warning if they remain."""
    try:
        delete(home, deployment, name)
    except StorageError as error:
        return one_line(
            f"schedule {name!r}: removed, but its settings remain, and `distill gc` keeps the "
            f"teachers that they name: {str(error).rstrip('.')}. Then run "
            f"`distill schedule remove {name}` again."
        )
    return None


def path_of(deployment: str, name: str) -> str:
    """Return the path of the settings of a schedule, relative to the store.

    Raises:
        ConfigError: a name that is not allowed.
    """
    check_name("deployment", deployment)
    return f"{SCHEDULES}/{deployment}/{check_name('schedule', name)}.yaml"
