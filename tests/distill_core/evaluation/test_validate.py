"""The validate stage: the counts of its blocks add up to the whole split, whatever their size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill_core.config.data import DataConfig
from distill_core.data.streamed import StreamedImages
from distill_core.errors import DataError
from distill_core.evaluation.accuracy import Accuracy, Hits, total
from distill_core.evaluation.metrics import count_hits
from distill_core.evaluation.validate import (
    decode_counts,
    encode_counts,
    validate,
    validate_student,
)
from distill_core.models.build import build_model
from distill_core.models.files import load_network, save_weights
from tests.support.hits import add_up
from tests.support.tiny import labelled, tiny_run

RUN = tiny_run("precision=float64")  # nothing is near enough to a tie to round the other way
STUDENT = RUN.posttrain.students[0]
TEST = labelled(37, seed=2)


def weights(classes: int = RUN.data.num_classes) -> bytes:
    """Return a student whose batch norms have seen something."""
    model = build_model(STUDENT, classes, seed=0).double()
    model.train()(torch.from_numpy(TEST.pixels / 255))
    return save_weights(model)


def evaluate_rows(rows: slice, *, data: DataConfig = RUN.data, batch: int = 500) -> dict[int, Hits]:
    """Evaluate the student on some rows."""
    return validate(
        weights(data.num_classes), TEST.pixels[rows], TEST.labels[rows], student=STUDENT,
        data=data, device="cpu", batch=batch,
    )  # fmt: skip


WHOLE = evaluate_rows(slice(None))


@pytest.mark.parametrize("size", [1, 2, 5, 10, 36, 37, 100])
def test_blocks_of_any_size_add_up_to_the_whole_evaluation(size: int) -> None:
    blocks = [
        evaluate_rows(slice(start, start + size)) for start in range(0, len(TEST.labels), size)
    ]
    assert add_up(blocks) == WHOLE
    assert total(WHOLE).images == 37


@pytest.mark.parametrize("batch", [1, 4, 37])
def test_the_batch_size_does_not_matter(batch: int) -> None:
    assert evaluate_rows(slice(None), batch=batch) == WHOLE


def test_counts_are_those_of_the_network_in_memory() -> None:
    model = load_network(weights(), STUDENT, num_classes=RUN.data.num_classes)
    assert next(model.parameters()).dtype == torch.float64
    data = RUN.data
    counted = count_hits(
        model, TEST.pixels, TEST.labels, mean=data.mean, std=data.std, device="cpu"
    )
    assert counted == WHOLE
    assert 0 < total(WHOLE).top1 < 37


def test_class_ids_with_holes_are_counted_under_their_own_ids() -> None:
    wide = RUN.data.model_copy(update={"num_classes": 9})
    ids = np.array([0, 3, 7, 8])[TEST.labels]
    state = weights(9)
    counted = validate(state, TEST.pixels, ids, student=STUDENT, data=wide, device="cpu")
    assert set(counted) == {0, 3, 7, 8}
    for label in counted:
        rows = ids == label
        alone = validate(
            state, TEST.pixels[rows], ids[rows], student=STUDENT, data=wide, device="cpu"
        )
        assert alone == {label: counted[label]}


def test_the_accuracy_of_a_class_is_computed_over_its_own_images() -> None:
    blocks = [{2: Hits(3, 1, 3)}, {2: Hits(1, 0, 1), 5: Hits(4, 4, 4)}]
    counted = add_up(blocks)
    by_class = {label: hits.accuracy for label, hits in counted.items()}
    assert by_class == {2: Accuracy(25.0, 100.0), 5: Accuracy(100.0, 100.0)}
    assert (total(counted).images, total(counted).accuracy) == (8, Accuracy(62.5, 100.0))


def test_the_total_of_no_counts_has_no_images() -> None:
    assert total({}).images == 0


def test_counts_survive_json_and_equal_counts_give_equal_bytes() -> None:
    file = encode_counts({"last": WHOLE, "ema": {}})
    assert decode_counts(file) == {"last": WHOLE, "ema": {}}
    assert encode_counts({"ema": {}, "last": dict(reversed(WHOLE.items()))}) == file


@pytest.mark.parametrize("data", [b"", b"[]", b'{"last": {"0": {"wrong": 1}}}', b'{"last": 3}'])
def test_malformed_counts_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="not counts"):
        decode_counts(data, where="here")


def test_every_set_of_weights_of_a_student_is_counted() -> None:
    seen: list[tuple[int, int]] = []
    counted = validate_student(
        {"last": weights(), "ema": weights()},
        TEST.pixels,
        TEST.labels,
        student=STUDENT,
        data=RUN.data,
        device="cpu",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert counted == {"last": WHOLE, "ema": WHOLE}
    assert seen == [(74, 74)]


def test_images_are_read_once_for_all_sets_of_weights_and_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []

    def read(rows: np.ndarray) -> np.ndarray:
        sizes.append(len(rows))
        return TEST.pixels[rows]

    monkeypatch.setattr("distill_core.evaluation.validate.COUNTED_IMAGES", 5)
    monkeypatch.setattr("distill_core.data.streamed.HELD_BYTES", 11 * TEST.pixels[0].nbytes)
    images = StreamedImages(np.arange(37), read, side=TEST.pixels.shape[-1], batch=5)
    stored, seen = {"last": weights(), "ema": weights()}, list[int]()
    counted = validate_student(
        stored,
        images,
        TEST.labels,
        student=STUDENT,
        data=RUN.data,
        device="cpu",
        progress=lambda done, total: seen.append(done),
    )
    assert counted == {"last": WHOLE, "ema": WHOLE}
    assert sizes == [10, 10, 10, 7]
    assert seen == [10, 20, 30, 40, 50, 60, 70, 74]
