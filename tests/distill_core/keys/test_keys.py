"""A key follows everything that determines the bytes of a shard, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from distill_core.config.load import load_run
from distill_core.keys import (
    EvaluationSplit,
    ImageSet,
    RecoverReads,
    StudentStart,
    TrainingSet,
    base,
    posttrain_key,
    recover_key,
    relabel_key,
    select_key,
    squeeze_key,
    statistics_key,
    validate_key,
)
from distill_core.sharding import ClassEntry, plan_shards

CLASSES = tuple(ClassEntry(n, f"n{n}") for n in range(12))
FINGERPRINTS = {c.wnid: f"content of {c.wnid}" for c in CLASSES}


def recover(
    *overrides: str,
    images: ImageSet = "distilled",
    teacher: str = "t",
    number: int = 0,
    **content: str,
) -> str:
    run = load_run("digits-demo", overrides)
    shards = plan_shards(
        CLASSES,
        ipc=run.ipc,
        ipc_range=run.recover.ipc_range,
        batch_size=run.recover.batch_size,
        composition=run.recover.composition,
        shard_classes=run.recover.shard_classes,
    )
    return recover_key(
        run,
        images,
        shards[number],
        reads=RecoverReads(teachers=[teacher]),
        fingerprints=FINGERPRINTS | content,
    )


@pytest.mark.parametrize(
    "override",
    [
        "recover.lr=0.1",
        "recover.steps=7",
        "recover.terms={cross_entropy: 1}",
        "recover.crop.milestone=0.5",
        "recover.encoding=jpeg",
        "recover.ipc_range=1",
        "recover.batch_size=5",
        "seed=1",
        "threads=2",
        "precision=float64",
        "data.side=16",
        "data.mean=[0, 0, 0]",
    ],
)
def test_settings_that_change_an_image_change_its_key(override: str) -> None:
    assert recover(override) != recover()


@pytest.mark.parametrize(
    "override",
    [
        "ipc=50",
        "data.path=/elsewhere",
        "data.name=other",
        "relabel.views=7",
        "posttrain.epochs=7",
        "posttrain.sets=[distilled]",
        "expected=something else entirely",
    ],
)
def test_settings_that_do_not_change_an_image_keep_its_key(override: str) -> None:
    assert recover(override) == recover()


def test_a_committee_changes_the_key_of_an_image() -> None:
    two = ("squeeze.pool=[{model: {name: convnet3}}]", "recover.teachers=[0, 1]")
    assert recover(*two, "recover.committee={}") != recover(*two)


def test_the_width_of_a_shard_changes_its_key_only_through_its_batches() -> None:
    batches = "recover.batch_size=4"
    assert recover(batches, "recover.shard_classes=12") == recover(batches)
    assert recover(batches, "recover.shard_classes=4") != recover(batches)


def test_another_teacher_or_shard_gives_another_key() -> None:
    assert len({recover(), recover(teacher="u"), recover(number=1)}) == 3


def test_content_changes_a_key_only_where_real_images_are_read() -> None:
    assert recover(n3="changed") == recover()
    assert recover("recover.init=real", n3="changed") != recover("recover.init=real")
    real, changed = recover(images="random_real"), recover(images="random_real", n3="changed")
    assert real != changed


@pytest.mark.parametrize("override", ["recover.init=real", "recover.lr=9", "recover.steps=5"])
def test_the_random_real_baseline_ignores_how_images_are_optimised(override: str) -> None:
    assert recover(override, images="random_real") == recover(images="random_real")


def test_a_label_key_follows_its_images_teacher_views_and_settings() -> None:
    def key(
        *overrides: str,
        scheme: str = "features",
        images: str = "i",
        teacher: str = "t",
        views: range = range(5),
    ) -> str:
        run = load_run("digits-demo", overrides)
        return relabel_key(run, scheme=scheme, images=images, teachers=[teacher], views=views)

    changed = {
        key(),
        key(images="j"),
        key(teacher="u"),
        key(views=range(5, 10)),
        key("relabel.mix.kind=mixup"),
        key("seed=1"),
        key(scheme="logits"),
        key("relabel.patches=2"),
        key("relabel.rand_augment={operations: 2, magnitude: 6}"),
    }
    assert len(changed) == 9
    pool = ("squeeze.pool=[{model: {name: convnet3}}]", "relabel.teachers=[0, 1]")
    weighting = "relabel.weighting={priors: [2, 1], temperature: 5}"
    assert key(*pool, weighting) != key(*pool)
    assert key("relabel.scheme=auto") == key()
    assert key("relabel.views=900", "relabel.views_per_shard=5") == key()


def test_a_teacher_key_follows_data_only_when_it_is_trained() -> None:
    def key(
        *overrides: str,
        train: str = "a",
        test: str = "b",
        checkpoint: str | None = None,
        start: str | None = None,
    ) -> str:
        run = load_run("digits-demo", overrides)
        return squeeze_key(
            run, class_hash="c", train=train, test=test, checkpoint=checkpoint, start=start
        )

    assert len({key(), key(train="x"), key(test="x"), key("squeeze.training.epochs=1")}) == 4
    imported = key(checkpoint="sha")
    assert imported == key("squeeze.training.epochs=1", train="x", checkpoint="sha")
    assert imported != key(checkpoint="other")
    assert len({key(), key(start="weights"), key(start="others")}) == 3
    assert key("recover.lr=9", "ipc=1") == key()


def test_a_student_key_follows_its_set_seed_and_shards() -> None:
    data = TrainingSet("distilled", images=["i"], labels=["l"], teachers=["t"])

    def key(
        *overrides: str, seed: int = 0, test: str = "b", rows: int | None = None, **changes: object
    ) -> str:
        run = load_run("digits-demo", overrides)
        return posttrain_key(
            run,
            student=StudentStart(run.posttrain.students[0], seed),
            data=replace(data, **changes),  # type: ignore[arg-type]
            test=EvaluationSplit("c", test, rows),
        )

    changed = {
        key(),
        key(seed=1),
        key(name="hard_labels"),
        key(images=["i", "j"]),
        key(labels=[]),
        key(test="x"),
        key("posttrain.epochs=1"),
        key("relabel.views=3"),
        key("relabel.prune=0.5"),
        key("posttrain.view_order=random"),
        key("posttrain.hard_epochs=[1, 2]"),
        key("posttrain.calibrate_student=true", "posttrain.student_temperature=1"),
        key(missing=["c00000"]),
    }
    assert len(changed) == 13
    assert key(images=["i"]) == key("relabel.views=240", "relabel.prune=0.5")
    assert key(missing=[]) == key()
    assert key("recover.lr=9", "posttrain.seeds=[0, 1]") == key()
    assert key("posttrain.validation_shard=7") == key(rows=None) == key()
    assert len({key(), key(rows=9), key(rows=10)}) == 3


def test_a_validation_key_follows_the_student_and_the_block() -> None:
    def key(
        *overrides: str, student: str = "s", weights: str | None = "w", rows: range = range(5)
    ) -> str:
        run = load_run("digits-demo", overrides)
        return validate_key(run, student=student, weights=weights, rows=rows)

    assert len({key(), key(student="t"), key(rows=range(5, 10)), key("threads=2")}) == 4
    assert len({key(), key(weights="v"), key(weights=None)}) == 3
    assert key("posttrain.validation_shard=7", "posttrain.epochs=1", "seed=1") == key()


def test_a_setting_at_its_default_is_in_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards made before the setting existed keep their keys."""
    monkeypatch.setattr(base, "digest_of", lambda parts: json.dumps(parts, default=str))

    def label(*overrides: str) -> str:
        run = load_run("digits-demo", overrides)
        return relabel_key(run, scheme="features", images="i", teachers=["t"], views=range(5))

    assert '"committee"' not in recover()
    assert '"committee"' in recover("recover.committee={}")
    assert '"patches"' not in label()
    assert '"patches"' in label("relabel.patches=2")


CONVOLUTIONS = ("recover.convolutions={first_layer_factor: 10}", "recover.batch_size=5")


def statistics(*overrides: str, labels: Sequence[int] = (), imported: str | None = None) -> str:
    return statistics_key(
        load_run("digits-demo", overrides),
        ("n0", "n1"),
        teachers=["t"],
        fingerprints=FINGERPRINTS,
        labels=labels,
        imported=imported,
    )


def test_the_key_of_class_statistics_follows_the_terms_that_read_them() -> None:
    bn = "recover.terms={class_bn_statistics: 1}"
    conv = ("recover.terms={conv_statistics: 1, class_bn_statistics: 1}", *CONVOLUTIONS)
    assert statistics(bn, "seed=1") == statistics(bn, labels=[5]) == statistics(bn)
    patches = (*conv[1:], "recover.terms={class_patch_statistics: 1, class_bn_statistics: 1}")
    assert len({statistics(bn), statistics(*conv), statistics(*patches)}) == 3
    channels = ("recover.terms={class_conv_statistics: 3, class_bn_statistics: 1}", *CONVOLUTIONS)
    assert statistics(*channels) == statistics(*conv)  # the same is measured
    smaller = "recover.convolutions.patch=4"
    assert statistics(*patches, "recover.convolutions.patch=16") == statistics(*patches)
    assert statistics(*patches, smaller) != statistics(*patches)
    assert statistics(*channels, smaller) == statistics(*channels)


def test_class_statistics_of_batch_norms_alone_keep_their_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Statistics measured before other kinds existed keep their keys."""
    monkeypatch.setattr(base, "digest_of", lambda parts: json.dumps(parts, default=str))
    alone = json.loads(statistics("recover.terms={class_bn_statistics: 1}"))
    common = {"stage", "numerics", "threads", "precision", "pixels"}
    assert alone.keys() - common == {"teachers", "content"}


def test_the_key_of_class_statistics_follows_those_that_were_imported_with_the_teacher() -> None:
    bn = "recover.terms={class_bn_statistics: 1}"
    assert len({statistics(bn, imported=digest) for digest in (None, "a", "b")}) == 3


def test_the_key_of_a_barycentre_follows_its_points_and_the_seed() -> None:
    def key(points: int, *more: str) -> str:
        terms = "recover.terms={feature_barycentre: 1}"
        return statistics(terms, f"recover.barycentre={{points: {points}}}", *more)

    assert len({key(3), key(4), key(3, "seed=1")}) == 3
    assert key(3, "ipc=50") == key(3)


def test_the_key_of_originals_follows_the_mosaics_and_the_class_ids() -> None:
    def key(*more: str, labels: Sequence[int] = (0, 1)) -> str:
        terms = ("recover.terms={feature_originals: 1}", "recover.init=mosaic")
        mosaic = "recover.mosaic={crops: 1, factor: 2, scale: [1, 1]}"
        originals = "recover.originals={images: 10, layer: 1}"
        return statistics(*terms, mosaic, originals, *more, labels=labels)

    changed = {
        key(),
        key("seed=1"),
        key(labels=(2, 3)),
        key("recover.mosaic.images=7"),
        key("recover.originals.layer=2"),
    }
    assert len(changed) == 5


def test_images_compared_with_all_classes_follow_the_statistics_of_every_block() -> None:
    run = load_run("digits-demo")
    (shard, *_) = plan_shards(
        CLASSES, ipc=1, ipc_range=1, batch_size=12, composition="one_per_class"
    )

    def key(*every: str) -> str:
        reads = RecoverReads(teachers=["t"], every=every)
        return recover_key(run, "distilled", shard, reads=reads, fingerprints=FINGERPRINTS)

    assert len({key(), key("one"), key("one", "two")}) == 3


def keys_of_real_images(*overrides: str) -> dict[str, str]:
    """Return the key of each kind of shard that is made from real images."""
    run, wnids = load_run("digits-demo", overrides), list(FINGERPRINTS)
    student = StudentStart(run.posttrain.students[0], seed=0)
    data = TrainingSet("distilled", images=["i"], labels=["l"], teachers=["t"])
    split = EvaluationSplit("c", "f")
    facts = {"class_hash": "c", "train": "a", "test": "b"}
    teacher = {"teacher": "t", "student": None, "before": None, "start": 0}
    return {
        "trained": squeeze_key(run, **facts, checkpoint=None),
        "imported": squeeze_key(run, **facts, checkpoint="w"),
        "statistics": statistics_key(run, wnids, teachers=["t"], fingerprints=FINGERPRINTS),
        "select": select_key(run, wnids, **teacher, fingerprints=FINGERPRINTS),
        "random_real": recover(*overrides, images="random_real"),
        "real starts": recover("recover.init=real", *overrides),
        "posttrain": posttrain_key(run, student=student, data=data, test=split),
    }


def other_keys(*overrides: str) -> set[str]:
    """Return the keys of shards that no real image enters, but for what their keys name."""
    run = load_run("digits-demo", overrides)
    return {
        recover(*overrides),
        relabel_key(run, scheme="logits", images="i", teachers=["t"], views=range(2)),
        validate_key(run, student="s", weights="w", rows=range(2)),
    }


def test_packs_enter_the_keys_of_all_that_is_made_from_real_images_if_they_change_them() -> None:
    before = keys_of_real_images()
    packed = [
        keys_of_real_images(f"data.pack={{size: {size}, quality: {quality}}}")
        for size, quality in ((32, 90), (33, 90), (32, 91))
    ]
    for kind, key in before.items():
        assert len({key, *(keys[kind] for keys in packed)}) == 4, kind
    assert keys_of_real_images("data.pack={encoding: original}") == before
    assert keys_of_real_images("data.pack={size: 32, pack_bytes: 2000000}") == packed[0]
    assert other_keys("data.pack={size: 32}") == other_keys()
