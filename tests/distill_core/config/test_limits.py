"""Upper limits of a config: mistyped sizes are refused when they are read."""

from __future__ import annotations

import tracemalloc

import pytest

from distill_core.config.load import load_run
from distill_core.config.schema import MAX_BATCHES, MAX_IMAGES, MAX_SHARDS
from distill_core.errors import ConfigError

ABSURD = (
    ("ipc=100000000", "ipc = 100000000: input should be less than or equal to 1000000"),
    ("ipc=1000000000000", "ipc = "),
    ("data.num_classes=1000000000", "data.num_classes = "),
    ("data.side=1000000", "data.side = "),
    ("data.name=" + "x" * 300, "data.name = "),
    ("recover.steps=1000000000000", "recover.steps = "),
    ("recover.batch_size=1000000000", "recover.batch_size = "),
    ("relabel.views=1000000000", "relabel.views = "),
    ("posttrain.epochs=1000000000000", "posttrain.epochs = "),
    ("posttrain.batch_size=1000000000", "posttrain.batch_size = "),
    ("squeeze.training.epochs=1000000000000", "squeeze.training.epochs = "),
    ("squeeze.model.width=100000", "squeeze.model.width = "),
    ("squeeze.training.processes=1000000", "squeeze.training.processes = "),
    ("threads=1000000", "threads = "),
    ("seed=9223372036854775808", "seed = "),
    ("seed=-1", "seed = -1"),
    ("posttrain.seeds=[18446744073709551616]", "posttrain.seeds.0 = "),
    ("ipc=-5", "ipc = -5"),
    ("recover.lr=-1", "recover.lr = -1"),
    ("recover.lr=.inf", "finite"),
    ("recover.lr=-.inf", "finite"),
    ("posttrain.temperature=.nan", "finite"),
    ("recover.terms={cross_entropy: .nan}", "finite"),
)
# Each value is possible, all of them together are not.
TOGETHER = (
    (
        ("ipc=1000000", "data.num_classes=100000"),
        f"100000000000 images, expected at most {MAX_IMAGES}",
    ),
    (
        (
            "ipc=200",
            "data.num_classes=100000",
            "recover.ipc_range=1",
            "recover.batch_size=1",
            "recover.shard_classes=1",
        ),
        f"20000000 class shards, expected at most {MAX_SHARDS}",
    ),
    (
        ("ipc=200", "data.num_classes=100000", "recover.batch_size=1"),
        f"20000000 batches, expected at most {MAX_BATCHES}",
    ),
    (
        ("relabel.views=1000000", "relabel.views_per_shard=1", "ipc=1000"),
        f"label shards, expected at most {MAX_BATCHES}",
    ),
    (
        (f"recover.teachers={list(range(40))}", "recover.committee.voters=20"),
        "choices, at most 100000 expected",
    ),
    ((f"recover.teachers={[0] * 101}",), "at most 100 items"),
)


def refused(*overrides: str) -> str:
    """Return the line that refuses a config, which takes little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError) as caught:
            load_run("digits-demo", overrides)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * 2**20
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("override", "words"), ABSURD, ids=[o[:40] for o, _ in ABSURD])
def test_an_absurd_size_is_refused_in_one_line_without_memory(override: str, words: str) -> None:
    assert words in refused(override)


@pytest.mark.parametrize(("overrides", "words"), TOGETHER, ids=[o[0][:40] for o, _ in TOGETHER])
def test_sizes_that_are_absurd_together_are_refused(overrides: tuple[str, ...], words: str) -> None:
    assert words in refused(*overrides)


def test_the_largest_plans_in_the_literature_are_far_below_the_limits() -> None:
    for preset, ipc in (("sre2l-in21k", 500), ("sre2l-in1k", 1000), ("cda-cifar10", 5000)):
        assert load_run(preset, [f"ipc={ipc}"]).ipc == ipc
