"""Real photographs of ImageNet through every stage, under a real teacher.

Nothing made here leaves the temporary folder: images that start from photographs are not published.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from distill_core.config.load import load_run
from distill_core.config.recovery import RecoverConfig
from distill_core.config.schema import RunConfig
from distill_core.config.training import ModelConfig
from distill_core.data.ingest import ingest
from distill_core.data.real_images import RealImages
from distill_core.evaluation.recognition import HALF, PUBLISHED, recognise
from distill_core.label_spaces.lists import class_ids
from distill_core.models.files import load_teacher, teacher_files
from distill_core.models.importing import import_model
from distill_core.models.spec import TeacherSpec
from distill_core.models.teacher import FrozenTeacher
from distill_core.recover.optimise import recover_batch
from distill_core.recover.setup import RecoverySetup
from distill_core.selection.class_images import ClassImages
from distill_core.sharding import ImageId
from distill_core.squeeze.importing import import_teacher
from distill_core.statistics.measure import MeasureSetup, measure_block
from distill_core.storage.statistics_files import decode_statistics, encode_block
from distill_core.storage.store import Store
from distill_core.training.supervised import Labelled
from tasks.run import Run, create_run
from tests.support.pipeline import execute, manifest

pytestmark = pytest.mark.slow

CLASSES = 1000  # the photographs are of every tenth of them
TEN = range(0, 100, 10)  # photographs that go through every stage
SOME = (0, 30, 60, 90)  # and that are optimised; 75 steps of all would take minutes
RUN = (
    "data.format=imagefolder",
    "data.keep=[]",
    "data.label_space=null",
    "data.load=center_crop",
    "data.resize=256",
    "squeeze.imported={label_space: imagenet-1k}",
    "recover.init=mosaic",
    "recover.mosaic={images: 1, crops: 5, factor: 2}",
    "recover.steps=0",
    "recover.batch_size=10",
    "recover.shard_classes=10",
    "relabel.views=2",
    "posttrain.students=[{name: shufflenet_v2_x0_5}]",
    "posttrain.epochs=1",
    "posttrain.batch_size=10",
    "posttrain.validation_shard=5",
)


@pytest.fixture(scope="module")
def folders(imagenet_samples: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Return all photographs, and ten of them, as folders of classes, the same in both splits."""
    roots = {count: tmp_path_factory.mktemp(f"photographs{count}") for count in (100, 10)}
    with tarfile.open(imagenet_samples) as archive:
        members = sorted(archive.getmembers(), key=lambda member: member.name)
        for number, member in enumerate(members):
            file = archive.extractfile(member)
            assert file is not None
            data = file.read()
            for root in roots.values() if number in TEN else [roots[100]]:
                _write(root, member.name[:9], data)
    return roots


def _write(root: Path, wnid: str, data: bytes) -> None:
    for split in ("train", "test"):
        place = root / split / wnid / f"{wnid}.JPEG"
        place.parent.mkdir(parents=True)
        place.write_bytes(data)


def config_of(folder: Path, count: int) -> RunConfig:
    """Return a run on some photographs, from mosaics to a student."""
    return load_run("in1k-lite-cpu", (*RUN, f"data.path={folder}", f"data.num_classes={count}"))


@pytest.fixture(scope="module")
def run(folders: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a complete run on ten photographs."""
    run = create_run(config_of(folders[10], 10), Store(str(tmp_path_factory.mktemp("store"))))
    execute(run)
    return run


@pytest.fixture
def ten(folders: dict[int, Path], tmp_path: Path) -> np.ndarray:
    """Return ten photographs by class, (10, 3, 224, 224) uint8."""
    data = config_of(folders[10], 10).data
    return RealImages(data, ingest(data, Store(str(tmp_path))), "train").resident()


def teacher() -> FrozenTeacher:
    """Return lite0 with all of its classes."""
    config = ModelConfig(name="efficientnet_lite0")
    model = import_model(PUBLISHED[config.name], config, num_classes=CLASSES)
    spec = TeacherSpec(
        model=config,
        num_classes=CLASSES,
        class_hash="0" * 16,
        mean=HALF,
        std=HALF,
        side=224,
        features=1280,
        origin="package",
    )
    files = teacher_files(model, spec)
    return load_teacher(files["safetensors"], files["json"])


def probability(pixels: np.ndarray, labels: np.ndarray, network: str) -> float:
    """Return the mean probability of the images' own classes under a network."""
    config = ModelConfig.model_validate({"name": network})
    model = import_model(PUBLISHED[network], config, num_classes=CLASSES)
    return recognise(model, pixels, labels, mean=HALF, std=HALF).probability


def test_an_imported_teacher_is_judged_on_all_photographs(
    folders: dict[int, Path], tmp_path: Path
) -> None:
    store, config = Store(str(tmp_path)), config_of(folders[100], 100)
    index = ingest(config.data, store)
    assert (index.train.num_rows, index.test.num_rows) == (100, 100)
    images = RealImages(config.data, index, "test")
    test = Labelled(images.resident(), images.labels)
    made = import_teacher(test, run=config, class_hash=index.class_hash, classes=index.class_names)
    assert made.accuracy.top1 >= 89  # 89 of 100 among all classes, more among these


def test_photographs_pass_through_every_stage_of_a_run(run: Run) -> None:
    for stage, shards in {"squeeze": 1, "recover": 1, "relabel": 1, "posttrain": 1}.items():
        assert len(manifest(run, stage).entries) == shards
    assert len(manifest(run, "validate").entries) == 2  # blocks of five test images
    assert not manifest(run, "validate").missing


def test_images_from_photographs_stay_what_they_are(ten: np.ndarray) -> None:
    """75 steps with weak crops: independent networks are as sure of them as of the photographs."""
    lite0, chosen = teacher(), ten[[number // 10 for number in SOME]]
    labels, ids = np.array(SOME) * 10, class_ids("imagenet-1k")
    wnids = [ids[label] for label in labels]
    config = RecoverConfig.model_validate(
        load_run("in1k-lite-cpu").recover.model_dump(mode="json")
        | {"init": "real", "mosaic": None, "steps": 75, "crop": {"mode": "constant", "low": 0.5}}
        | {"terms": {"cross_entropy": 1.0, "bn_statistics": 0.001, "class_bn_statistics": 0.001}}
    )
    classes = list(zip(labels.tolist(), wnids, strict=True))
    real = ClassImages(lambda label: np.flatnonzero(labels == label), lambda rows: chosen[rows])
    measured = measure_block(classes, real, MeasureSetup(config, lite0, scorer=lite0, seed=0))
    statistics = decode_statistics(encode_block(measured, config)["safetensors"])
    batch = tuple(ImageId(label, wnid, 0) for label, wnid in classes)
    made = recover_batch(
        batch,
        RecoverySetup(config, [lite0], 0),
        start=chosen,
        real=[statistics.of(batch, config, None)],
    )
    assert not np.array_equal(made.pixels, chosen)
    for network in ("efficientnet_lite1", "efficientnet_lite2"):
        before = probability(chosen, labels, network)
        assert probability(made.pixels, labels, network) >= before - 0.02, network
