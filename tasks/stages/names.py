"""Which stages a run has, in order.

A stage is a kind of work. Where images are made in rounds, every kind from `select` to `posttrain`
occurs once a round: ``recover-1`` makes the images of the first round, ``recover-2`` those of the
first two, and so on; a shard of several stages is one shard under one key. The last round has the
plain names, which a run without rounds has, too.
"""

from __future__ import annotations

from distill_core.config.schema import RunConfig

STAGES = (  # every kind
    "ingest",
    "squeeze",
    "statistics",
    "select",
    "recover",
    "relabel",
    "posttrain",
    "validate",
)
ROUND = ("select", "recover", "relabel", "posttrain")  # kinds that occur once a round


def stages_of(config: RunConfig) -> tuple[str, ...]:
    """Return the stages of a run, in order."""
    kinds = [kind for kind in STAGES if kind != "select" or config.recover.init == "judged"]
    before, after = kinds[: kinds.index("statistics") + 1], kinds[kinds.index("posttrain") + 1 :]
    repeated = [kind for kind in kinds if kind in ROUND]
    suffixes = [*(f"-{number}" for number in range(1, len(config.round_starts))), ""]
    return (*before, *(kind + suffix for suffix in suffixes for kind in repeated), *after)


def kind_of(name: str) -> str:
    """Return the kind of a stage, or of a stage's manifest: the folder where its shards lie."""
    return name.partition(".")[0].partition("-")[0]


def round_of(config: RunConfig, stage: str) -> int:
    """Return up to which round a stage goes; the first is 1."""
    number = stage.partition("-")[2]
    return int(number) if number else len(config.round_starts)


def in_round(config: RunConfig, kind: str, number: int) -> str:
    """Return the stage of a kind that goes up to a round."""
    return kind if number == len(config.round_starts) else f"{kind}-{number}"


def is_last(stage: str) -> bool:
    """Return whether a stage covers everything, not only some rounds."""
    return "-" not in stage


def round_of_image(config: RunConfig, ipc_index: int) -> int:
    """Return the round that makes an image; the first is 1."""
    return sum(start <= ipc_index for start in config.round_starts)
