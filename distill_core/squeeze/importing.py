"""The teacher of a run, imported from a file of weights."""

from __future__ import annotations

from collections.abc import Sequence

from distill_core.config.schema import RunConfig
from distill_core.config.training import ImportConfig
from distill_core.errors import ConfigError, DataError
from distill_core.models.hub_config import check_hub_config
from distill_core.models.importing import Fate, fit_network, read_description, read_weights
from distill_core.models.spec import check_description
from distill_core.progress import Notice, ignore_notice
from distill_core.squeeze.judging import judge_import
from distill_core.squeeze.outputs import count_outputs, places_of, statistics_file, take_outputs
from distill_core.squeeze.result import SqueezedTeacher, described_teacher
from distill_core.storage.statistics_files import OF_TEACHER
from distill_core.training.supervised import Split, evaluate


def import_teacher(
    test: Split,
    *,
    run: RunConfig,
    class_hash: str,
    classes: Sequence[str] = (),
    device: str = "cpu",
    notice: Notice = ignore_notice,
) -> SqueezedTeacher:
    """Import the teacher of a run from `squeeze.checkpoint`, and measure its accuracy.

    Args:
        test: images on which its accuracy is measured.
        run: names the file, the network it holds, the class count and the normalisation.
        class_hash: identity of the label space; compared where a description stands beside a file.
        classes: names of the classes by id; read only if the file has another label space, or
            statistics of its classes, which are left out without names.
        device: where its accuracy is measured.
        notice: receives a sentence about what was chosen from the file or left out.

    Raises:
        ConfigError: no such file, or it is of another network, class list or normalisation, or its
            accuracy shows that it is not a teacher of these classes in this order.
            It is also raised for a file that cannot be read as finite weights: the file is what
            the config names, and another attempt would read the same bytes.
    """
    url = run.squeeze.checkpoint
    assert url is not None
    config, data = run.squeeze.imported or ImportConfig(), run.data
    try:
        if (description := read_description(url)) is not None:
            check_description(description, run, class_hash=class_hash, where=url)
        outputs = count_outputs(config, data.num_classes)
        check_hub_config(url, run, outputs=outputs)
        network = fit_network(
            read_weights(url, config.entry),
            run.squeeze.model,
            num_classes=outputs,
            where=url,
            statistics=_fate(config, run),
            notice=notice,
        )
        places = places_of(config, data, classes, where=url)
    except DataError as error:
        raise ConfigError(str(error)) from None
    if places:
        take_outputs(network.model, places)
    model, accuracy = network.model.float().to(device), None
    if len(test.labels) > 0:
        accuracy = judge_import(model, test, run=run, device=device, where=url)
        if accuracy is None:
            accuracy = evaluate(model, test, run, device=device)
    teacher = described_teacher(model, accuracy, (), run=run, class_hash=class_hash)
    if network.statistics and classes:
        teacher.files[OF_TEACHER] = statistics_file(network.statistics, places, classes)
    return teacher


def _fate(config: ImportConfig, run: RunConfig) -> Fate:
    """Return what an import does with the statistics of classes that a checkpoint may have."""
    if not config.class_statistics:
        return "left_out"
    return "used" if "batch_norms" in run.recover.measured else "kept"
