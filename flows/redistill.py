"""Re-distillation: a new version of a series when its input changed, and nothing when it did not.

There is no bookkeeping of what has to be made again. A new version is an ordinary run, and shards
whose keys are those of an earlier one have their markers already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from distill_core.config.schema import DataConfig, RunConfig
from distill_core.data.index import DatasetIndex, load_index
from distill_core.data.readers import open_reader
from distill_core.errors import ConfigError
from distill_core.storage.store import Store
from flows import pipeline
from flows.addresses import check_config
from flows.diff import Diff
from flows.diff_report import FILE, write_diff
from flows.progress import display
from flows.status import RunStatus, run_status
from tasks.execution import Execution
from tasks.ingesting import ingest_observed, record_dataset
from tasks.plans import dataset_of
from tasks.plans.teachers import check_inherited
from tasks.policy import Policy
from tasks.runs import Run, create_run
from tasks.stages import manifests, stage_status
from tasks.versions import Version, claim, next_name, version_of, versions_of

Complete = Callable[[Run, Execution], RunStatus]


@dataclass(frozen=True)
class Outcome:
    """What a re-distillation came to."""

    run: Run  # the version that stands now, or is on its way
    changed: bool  # False: it stood before, and nothing was done
    diff: Diff | None  # against the version before; None: there is none, or shards are missing


def redistill(
    config: RunConfig,
    store: Store,
    *,
    series: str,
    policy: Policy,
    execution: Execution,
    complete: Complete | None = None,
) -> Outcome:
    """Distil a dataset again if it, or what is asked of it, has changed.

    The last complete version of the series is what the new one stands on: its class ids go on, and
    by `policy` its teacher. An incomplete version of the same input is resumed; one of another
    input is left behind.

    Args:
        config: what is asked for; `squeeze.reuse` and `squeeze.start` are filled in here.
        store: where the series stands.
        series: its runs are called ``<series>-v0001`` and so on.
        policy: `keep` the teacher; `fine_tune` it on the data as they are now; or
            `squeeze_again`, which carries over nothing but class ids.
        execution: where and how jobs run.
        complete: does what a run lacks; by default `flows.pipeline.complete_run`.

    Raises:
        ConfigError: `keep` with a class that the teacher has no output for, a teacher that does
            not fit what is asked, or credentials in the config.
        DataError: the dataset is damaged, or has another number of classes.
    """
    check_config(config)
    store = replace(store, single_writer=execution.single_writer)
    history = versions_of(store, series)
    base = next((run for run in reversed(history) if run_status(run).complete), None)
    index = _look(config.data, store, base, policy)
    if base is not None and base is history[-1] and _same(base, config, index, policy):
        if not store.exists(base.path(FILE)):
            write_diff(base)
        return Outcome(base, changed=False, diff=None)
    wanted = config if base is None else _inherit(config, base, policy)
    check_inherited(wanted, index, store)
    version = None if base is None else _version(base, policy, config)
    run = _resumable(history, version, wanted, index)
    if run is None:
        pipeline.check_store(store)
        run = _register(wanted, store, series, version)
    if not stage_status(run, "ingest").complete:
        record_dataset(run, index)
    reached = (complete or pipeline.complete_run)(run, execution)
    return Outcome(run, changed=True, diff=write_diff(run) if reached.complete else None)


def _look(data: DataConfig, store: Store, base: Run | None, policy: Policy) -> DatasetIndex:
    """Index the dataset as it is now, its class ids those of the version before."""
    before = None if base is None else load_index(store, dataset_of(base))
    if before is not None and policy == "keep":
        _refuse_added(data, before)
    with display() as shown:
        return ingest_observed(data, store, before, shown)


def _refuse_added(data: DataConfig, before: DatasetIndex) -> None:
    known = set(before.class_names)
    added = [name for name in open_reader(data).classes() if name not in known]
    if added:
        raise ConfigError(
            f"{data.path or data.format}: class {added[0]!r} is new ({len(added)} such classes), "
            "and the teacher that policy keep takes over has no output for it. Use policy "
            "fine_tune or squeeze_again, or leave the class out."
        )


def _same(base: Run, config: RunConfig, index: DatasetIndex, policy: Policy) -> bool:
    """Return whether another version would be what the last one is already."""
    version = version_of(base)
    # Who squeezes again wants a teacher of its own: one that was inherited is another config.
    stands = base.config if version is None or policy == "squeeze_again" else version.asked
    return stands == config and dataset_of(base) == index.id


def _inherit(config: RunConfig, base: Run, policy: Policy) -> RunConfig:
    """Return what is asked for with the teachers that the policy gives it, each by its place."""
    if policy == "squeeze_again":
        return config
    if policy == "fine_tune" and config.squeeze.training is None:
        raise ConfigError(
            "squeeze.training: not given, and policy fine_tune trains the teacher. Say how, or "
            "use policy keep."
        )
    teachers, pool = manifests(base, "squeeze")["squeeze"].entries, config.squeeze.pool
    if len(teachers) != 1 + len(pool):
        raise ConfigError(
            f"squeeze.pool: teachers that are asked for: {1 + len(pool)}, those of "
            f"runs/{base.name}: {len(teachers)}. Ask for as many, or use policy squeeze_again."
        )
    first, *others = [_source(entry.key, policy) for entry in teachers]
    members = [member.model_copy(update=o) for member, o in zip(pool, others, strict=True)]
    squeeze = config.squeeze.model_copy(update={**first, "pool": tuple(members)})
    return config.model_copy(update={"squeeze": squeeze})


def _source(key: str, policy: Policy) -> dict[str, str | None]:
    """Return where a teacher comes from, in the words of `SqueezeConfig`."""
    keep = policy == "keep"
    return {"checkpoint": None, "reuse": key if keep else None, "start": None if keep else key}


def _version(base: Run, policy: Policy, asked: RunConfig) -> Version:
    return Version(previous=base.name, dataset=dataset_of(base), policy=policy, asked=asked)


def _resumable(
    history: Sequence[Run], version: Version | None, wanted: RunConfig, index: DatasetIndex
) -> Run | None:
    """Return the last version if it is an incomplete one of the same input."""
    if not history:
        return None
    last = history[-1]
    if last.config != wanted or version_of(last) != version:
        return None
    ingested = stage_status(last, "ingest").complete
    return last if not ingested or dataset_of(last) == index.id else None


def _register(config: RunConfig, store: Store, series: str, version: Version | None) -> Run:
    """Create the next version of a series."""
    run = Run(next_name(store, series), config, store)
    if version is not None:
        claim(run, version)
    return create_run(config, store, run.name)
