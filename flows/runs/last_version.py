"""The last version of a series, compared with a request by a listing of the source alone.

The manifest of ingest names the parts of the source that a version was made from, by keys over the
listed files. A source may differ from it and still leave the version as it is: files are written
again with equal content, or no shard depends on the change. `remember` then records what was
listed, so that the same source is not read and compared again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pydantic import ConfigDict, TypeAdapter

from distill_core.config.addresses import check_config
from distill_core.config.schema import RunConfig
from distill_core.data.detection.resolve import resolve_run
from distill_core.data.index import DatasetIndex
from distill_core.data.index_files import open_index
from distill_core.data.ingest import IngestPlan
from distill_core.errors import DataError
from distill_core.storage.digest import sha256
from distill_core.storage.manifest import load_manifest
from distill_core.storage.records import parse_json, seal_json
from distill_core.storage.store import Store
from flows.status.status import run_status
from tasks.policy import TeacherPolicy
from tasks.run import Run
from tasks.series import version_of, versions_of
from tasks.stages.ingest import STAGE
from tasks.stages.inputs import dataset_of

FILE = "source.json"


@dataclass(frozen=True)
class _Compared:
    """A source and a request that leave a version as it is."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    run: str
    listing: str  # see `listing_of`
    request: str  # hash over the requested config and the policy
    record_sha256: str = ""


_COMPARED: TypeAdapter[_Compared] = TypeAdapter(_Compared)


def unchanged(
    config: RunConfig, store: Store, *, series: str, policy: TeacherPolicy, allow_missing: int = 0
) -> Run | None:
    """Return the last version of a series if the source and the settings leave it as it is.

    The source is listed and nothing of it is read, except for the footers of Parquet files and for
    lists of classes and labels. Nothing is written.

    Args:
        config: requested for the next version.
        store: of the series.
        series: its name.
        policy: for the teacher of the next version.
        allow_missing: number of failed shards without which a version counts as complete.

    Returns:
        The version; None if something changed, if the version is not complete, or if there is none.

    Raises:
        ConfigError, DataError: the config or the source is refused, as by a re-distillation.
        StorageError: the source or the store cannot be read.
    """
    check_config(config)
    history = versions_of(store, series)
    if not history or not run_status(history[-1]).nothing_to_do(allow_missing):
        return None
    last, config = history[-1], resolve_run(config)
    index = open_index(store, dataset_of(last))
    plan = IngestPlan(config.data, index)
    listing = listing_of(config, [each.key for each in plan.parts], plan.names)
    if has_settings(last, config, policy) and listing == _ingested(last, config, index):
        return last
    same = _compared(last) == _Compared(last.name, listing, _request(config, policy))
    return last if same else None


def sentence(version: Run) -> str:
    """Return the outcome of `unchanged` in words."""
    return (
        f"{version.name}: neither the source nor the settings have changed since they were last "
        "compared; nothing to do."
    )


def has_settings(version: Run, config: RunConfig, policy: TeacherPolicy) -> bool:
    """Return whether a version was made on a request with this config."""
    origin = version_of(version)
    # `squeeze_again` requires a teacher of its own, so an inherited one counts as a difference.
    own = origin is None or policy == "squeeze_again"
    return config == (version.config if origin is None or own else origin.requested)


def remember(
    version: Run,
    config: RunConfig,
    policy: TeacherPolicy,
    *,
    keys: Sequence[str],
    index: DatasetIndex,
) -> None:
    """Record that a source leaves a version as it is, unless its manifest shows that already.

    Args:
        version: the last of its series.
        config: the requested config.
        policy: the requested one.
        keys: of the parts of the source.
        index: of the source.
    """
    listing = listing_of(config, keys, _present(index))
    made_from = open_index(version.store, dataset_of(version))
    if has_settings(version, config, policy) and listing == _ingested(version, config, made_from):
        return
    facts = {"run": version.name, "listing": listing, "request": _request(config, policy)}
    version.store.put(version.path(FILE), seal_json(facts))


def listing_of(config: RunConfig, keys: Sequence[str], names: Iterable[str]) -> str:
    """Return a hash over a listed source.

    Args:
        config: of a run on the source.
        keys: of its parts, in order.
        names: of its classes. A rule may leave out classes by the number of their images, and a
            class with images has a part, so the parts decide there.
    """
    rule = IngestPlan(config.data).rule
    classes = None if rule is not None and rule.drops_classes else sorted(names)
    return sha256(json.dumps([list(keys), classes]).encode())


def _ingested(version: Run, config: RunConfig, index: DatasetIndex) -> str | None:
    """Return the listing that a version was made from; None without a record of it."""
    manifest = load_manifest(version.store, version.name, str(STAGE), sealed=version.sealed)
    if manifest is None:
        return None
    return listing_of(config, [entry.key for entry in manifest.entries], _present(index))


def _present(index: DatasetIndex) -> list[str]:
    return [entry.wnid for entry in index.classes if not entry.removed]


def _request(config: RunConfig, policy: TeacherPolicy) -> str:
    tree = {"config": config.model_dump(mode="json"), "policy": policy}
    return sha256(json.dumps(tree, sort_keys=True).encode())


def _compared(version: Run) -> _Compared | None:
    """Return the record of a version, without its digest; one that is damaged is written again."""
    path = version.path(FILE)
    if not version.store.exists(path):
        return None
    with suppress(DataError):
        where = version.store.uri(path)
        what, remedy = "a comparison with a source", "Delete it."
        data = version.store.read(path)
        found = parse_json(
            _COMPARED, data, where=where, what=what, remedy=remedy, sealed=version.sealed
        )
        return _Compared(found.run, found.listing, found.request)
    return None
