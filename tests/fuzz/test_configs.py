"""Random configs: a valid run, or one line that refuses it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from distill_core.config.load import load_run, parse_yaml, preset_names, to_yaml, validate_run
from distill_core.config.schema import RunConfig
from distill_core.errors import MAX_LINE, ConfigError
from distill_core.sharding import plan_size
from flows.estimate import cost, tables, workload
from flows.estimate.counts import Counts
from flows.estimate.rates import rates_of
from tests.support.fuzzing import ODD, examples, mutated_bytes, mutated_trees, trees

PRESETS = [load_run(name) for name in preset_names()[::8]]
TEXTS = [to_yaml(run).encode() for run in PRESETS]
KEYS = sorted(
    {
        f"{part}.{key}"
        for run in PRESETS
        for part, inner in run.model_dump(mode="json").items()
        if isinstance(inner, dict)
        for key in inner
    }
)
SYNTAX = st.sampled_from(
    [*"{}[]:,-&*!|>'\"%@#?\n\t ", "a", "b: ", "- ", "&a ", "*a", "<<: ", "!!int ", "---\n", "0x1"]
)
MANY_SHARDS = 2000  # larger plans are valid, but take seconds


def only_refused(*arguments: Any, load: Any = load_run) -> RunConfig | None:
    """Return the run, or None if it is refused in one line of bounded length."""
    refusal, run = "", None
    try:
        run = load(*arguments)
    except ConfigError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert len(refusal) <= MAX_LINE + 100
    return run


def check_usable(run: RunConfig) -> None:
    """Check that a config can be stored, read back, planned and estimated."""
    stored = parse_yaml(to_yaml(run), where="stored")
    assert validate_run(stored, where="stored") == run
    recover = run.recover
    shape = {"ipc": run.ipc, "ipc_range": recover.ipc_range, "batch_size": recover.batch_size}
    shards, batches = plan_size(
        run.data.num_classes,
        **shape,
        composition=recover.composition,
        shard_classes=recover.shard_classes,
    )
    if shards < MANY_SHARDS and batches < 10 * MANY_SHARDS:
        work, counts = workload.plan_run(run, test_images=20_000), Counts(50_000, 20_000, "")
        spent = cost.cost(run, work, counts, rates_of(run, given=1.0), price=1.0)
        assert spent.unknown == ()
        machines = cost.Machines(gpus=2, cores=4)
        tables.to_json(cost.Estimate(work, counts, spent, {}, machines))


@examples(60)
@given(content=st.binary(max_size=200) | st.sampled_from(TEXTS).flatmap(mutated_bytes))
def test_random_bytes_are_a_config_or_refused_in_one_line(content: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        Path(file.name).write_bytes(content)
        only_refused(file.name)


@examples(150)
@given(parts=st.lists(SYNTAX, max_size=60))
def test_random_yaml_syntax_is_a_tree_or_refused_in_one_line(parts: list[str]) -> None:
    only_refused("".join(parts), load=lambda text: parse_yaml(text, where="fuzz"))


@examples(60)
@given(tree=st.sampled_from(PRESETS).flatmap(lambda p: mutated_trees(p.model_dump(mode="json"))))
def test_a_mutated_preset_is_usable_or_refused_in_one_line(tree: Any) -> None:
    run = only_refused(tree, load=lambda tree: validate_run(tree, where="fuzz"))
    if run is not None:
        check_usable(run)


@examples(40)
@given(
    preset=st.sampled_from(preset_names()) | st.text(max_size=20),
    overrides=st.lists(
        st.tuples(st.sampled_from(KEYS) | st.text(max_size=10), st.sampled_from(ODD) | trees),
        max_size=3,
    ),
)
def test_random_overrides_are_usable_or_refused_in_one_line(
    preset: str, overrides: list[tuple[str, Any]]
) -> None:
    words = [f"{key}={_flow(value)}" for key, value in overrides]
    run = only_refused(preset, words)
    if run is not None:
        check_usable(run)


def _flow(value: Any) -> str:
    """Return a value as YAML on one line, or as Python writes it if it has no YAML."""
    try:
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    except (yaml.YAMLError, UnicodeEncodeError):
        return repr(value)
    return text.removesuffix("...\n").strip()


def test_a_shipped_preset_passes_the_same_checks() -> None:
    check_usable(PRESETS[0])


def test_a_refusal_is_recognised() -> None:
    with pytest.raises(AssertionError):
        only_refused(load=_two_lines)


def _two_lines() -> RunConfig:
    raise ConfigError("one\ntwo")
