"""The table of stages: one row per kind of work, in the order in which a run does them.

A new stage is one file with its payload, its jobs and its worker, and one row here. Planning,
running, status, reports, the Prefect flow and garbage collection read the table.
"""

from __future__ import annotations

from collections.abc import Mapping

from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from distill_core.evaluation.blocks import validation_blocks
from tasks.stages.dataset_record import FILE as DATASET_RECORD
from tasks.stages.expected import Expected
from tasks.stages.ingest import IngestPayload, finish_ingest, ingest_jobs, ingest_notices
from tasks.stages.names import StageId
from tasks.stages.pack import PackPayload, expected_packs, pack_jobs
from tasks.stages.posttrain import PosttrainPayload, posttrain_jobs
from tasks.stages.recover import RecoverPayload, recover_jobs
from tasks.stages.relabel import RelabelPayload, relabel_jobs
from tasks.stages.select import SelectPayload, select_jobs
from tasks.stages.squeeze import SqueezePayload, check_inherited, squeeze_jobs
from tasks.stages.stage import Stage
from tasks.stages.statistics import StatisticsPayload, statistics_jobs
from tasks.stages.validate import ValidatePayload, judged_in_blocks, validate_jobs


def _squeeze_processes(config: RunConfig) -> int:
    training = config.squeeze.training
    return 1 if training is None else training.processes


def _expected_statistics(expected: Expected, _stage: StageId) -> int:
    recover = expected.config.recover
    return len(recover.teachers) * expected.blocks if recover.needs_class_statistics else 0


def _expected_labels(expected: Expected, stage: StageId) -> int:
    relabel = expected.config.relabel
    ranges = -(-relabel.stored_views // relabel.views_per_shard)
    return 0 if expected.online else expected.image_shards(stage) * ranges


def _expected_students(expected: Expected, stage: StageId) -> int:
    posttrain = expected.config.posttrain
    if not stage.is_last:
        return 1
    return len(posttrain.students) * len(posttrain.seeds) * len(posttrain.sets)


def _expected_validations(expected: Expected, _stage: StageId) -> int | None:
    if expected.test_images is None:
        return None
    size = expected.config.posttrain.validation_shard
    blocks = validation_blocks(expected.test_images, size)
    return len(blocks) * _expected_students(expected, StageId("posttrain"))


ROWS = (
    Stage(
        kind="ingest",
        unit="images",
        summary="Index the images of the dataset.",
        expected=lambda expected, stage: expected.parts,
        payload=IngestPayload,
        jobs=ingest_jobs,
        worker="tasks.stages.ingest:IngestWorker",
        less_memory="Divide the dataset into smaller files or folders",
        cpu_only=True,
        is_whole=lambda stage: True,
        record=DATASET_RECORD,
        finish=finish_ingest,
        notices=ingest_notices,
    ),
    Stage(
        kind="pack",
        unit="images",
        summary="Copy the real images into large files, from which later stages read them.",
        expected=expected_packs,
        payload=PackPayload,
        jobs=pack_jobs,
        worker="tasks.stages.pack:PackWorker",
        cpu_only=True,
        is_whole=lambda stage: True,
        occurs=lambda config: config.data.pack is not None,
        less_memory="Lower data.pack.pack_bytes",
    ),
    Stage(
        kind="squeeze",
        unit="steps",
        summary="Train the teachers on real images, or import them.",
        expected=lambda expected, stage: 1 + len(expected.config.squeeze.pool),
        payload=SqueezePayload,
        jobs=squeeze_jobs,
        worker="tasks.stages.squeeze:SqueezeWorker",
        less_memory=(
            "Read the training images in every epoch (DISTILL_RESIDENT_BYTES=0), or lower "
            "squeeze.training.batch_size"
        ),
        reports_accuracy=True,
        trains=True,
        is_whole=lambda stage: True,
        check=lambda inputs: check_inherited(inputs.run.config, inputs.index, inputs.run.store),
        processes=_squeeze_processes,
        fewer_processes=True,
    ),
    Stage(
        kind="statistics",
        unit="classes",
        summary="Measure the statistics of the real images of each class under the teachers.",
        expected=_expected_statistics,
        payload=StatisticsPayload,
        jobs=statistics_jobs,
        worker="tasks.stages.statistics:StatisticsWorker",
        less_memory="Measure a smaller network, or lower data.side",
        has_shards=lambda run: run.config.recover.needs_class_statistics,
    ),
    Stage(
        kind="select",
        unit="classes",
        summary="Select the real images that a round starts from.",
        expected=lambda expected, stage: expected.blocks,
        payload=SelectPayload,
        jobs=select_jobs,
        worker="tasks.stages.select:SelectWorker",
        less_memory="Classify with a smaller network, or lower data.side",
        per_round=True,
        occurs=lambda config: config.recover.init == "judged",
    ),
    Stage(
        kind="recover",
        unit="steps",
        summary="Optimise the distilled images under the teachers.",
        expected=lambda expected, stage: expected.image_shards(stage),
        payload=RecoverPayload,
        jobs=recover_jobs,
        worker="tasks.stages.recover:RecoverWorker",
        less_memory=(
            "Recover in smaller launches (--groups 1), or lower recover.batch_size, which changes "
            "the result"
        ),
        per_round=True,
        image_sets=True,
        worker_options=lambda execution: {"groups": execution.groups},
    ),
    Stage(
        kind="relabel",
        unit="views",
        summary="Store the teachers' predictions on views of the images.",
        expected=_expected_labels,
        payload=RelabelPayload,
        jobs=relabel_jobs,
        worker="tasks.stages.relabel:RelabelWorker",
        less_memory=(
            "Make smaller image shards (recover.shard_classes, recover.ipc_range), or lower "
            "relabel.views_per_shard"
        ),
        per_round=True,
        image_sets=True,
    ),
    Stage(
        kind="posttrain",
        unit="steps",
        summary="Train students on the distilled images and evaluate them as they learn.",
        expected=_expected_students,
        payload=PosttrainPayload,
        jobs=posttrain_jobs,
        worker="tasks.stages.posttrain:PosttrainWorker",
        less_memory=(
            "Compute a batch in parts (posttrain.micro_batch), which changes the result, or leave "
            "the images on the host (DISTILL_DEVICE_BYTES=0)"
        ),
        per_round=True,
        reports_accuracy=True,
        trains=True,
        is_whole=lambda stage: not stage.is_last,
        processes=lambda config: config.posttrain.processes,
        occurs=lambda config: bool(config.posttrain.students),
    ),
    Stage(
        kind="validate",
        unit="images",
        summary="Evaluate every student on the whole test split, in blocks.",
        expected=_expected_validations,
        payload=ValidatePayload,
        jobs=validate_jobs,
        worker="tasks.stages.validate:ValidateWorker",
        less_memory="Evaluate smaller students, or lower data.side",
        reports_accuracy=True,
        has_shards=judged_in_blocks,
        occurs=lambda config: bool(config.posttrain.students),
    ),
)
STAGES: Mapping[str, Stage] = {row.kind: row for row in ROWS}


def row_of(stage: StageId) -> Stage:
    """Return the row of a stage's kind.

    Raises:
        ConfigError: no row has this kind.
    """
    row = STAGES.get(stage.kind)
    if row is None:
        raise ConfigError(f"stage {stage}: no such kind of stage. Kinds: {', '.join(STAGES)}.")
    return row


def sharded_kinds() -> tuple[str, ...]:
    """Return the kinds whose shards lie in the store, each in a folder of its name."""
    return tuple(STAGES)


def chained_kinds() -> tuple[str, ...]:
    """Return the kinds on whose shards later stages build, which their manifests list."""
    return tuple(kind for kind, row in STAGES.items() if not row.record)


def stages_of(config: RunConfig) -> tuple[StageId, ...]:
    """Return the stages of a run, in order."""
    rows = [row for row in STAGES.values() if row.occurs(config)]
    first = next(number for number, row in enumerate(rows) if row.per_round)
    repeated = [row.kind for row in rows if row.per_round]
    before = [StageId(row.kind) for row in rows[:first]]
    after = [StageId(row.kind) for row in rows[first:] if not row.per_round]
    rounds = [
        StageId.up_to(config, kind, number)
        for number in range(1, len(config.round_starts) + 1)
        for kind in repeated
    ]
    return (*before, *rounds, *after)
