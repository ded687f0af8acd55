"""Datasets in a bucket: the objects that stand for folders are neither images nor classes."""

from __future__ import annotations

from uuid import uuid4

import boto3

from distill_core.config.recommended.facts import Machine
from distill_core.data.detection.recommend import recommend
from distill_core.data.folders import open_place
from distill_core.data.ingest import ingest
from distill_core.data.readers.formats import open_reader
from distill_core.storage.store import Store
from tests.support.datasets import data_config, png

IMAGES = {
    f"{s}/{c}/{n}.png": 10 * n for s in ("train", "test") for c in ("cat", "dog") for n in (0, 1)
}
MARKERS = ("", "train/", "test/", "train/cat/", "test/dog/", "train/cat/sub.png/")
OF_HADOOP = ("train_$folder$", "train/cat_$folder$", "train/cat/sub_$folder$")


def test_markers_of_folders_are_nothing(s3_bucket: str, s3_store: Store) -> None:
    bucket, prefix = s3_bucket.removeprefix("s3://"), uuid4().hex
    client = boto3.client("s3")
    for path, value in IMAGES.items():
        client.put_object(Bucket=bucket, Key=f"{prefix}/{path}", Body=png(value))
    config = data_config(f"{s3_bucket}/{prefix}")
    plain = ingest(config, s3_store)
    for path in (*MARKERS, *OF_HADOOP):
        client.put_object(Bucket=bucket, Key=f"{prefix}/{path}", Body=b"")
    heard: list[str] = []
    assert ingest(config, s3_store, notice=heard.append) == plain
    assert heard == []
    assert open_reader(config).classes() == ("cat", "dog")


def test_a_single_object_is_described_as_in_a_listing(s3_bucket: str) -> None:
    bucket, prefix = s3_bucket.removeprefix("s3://"), uuid4().hex
    boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/train/a.tar", Body=b"archive")
    folder = open_place(f"{s3_bucket}/{prefix}", "data.path")
    (listed,) = folder.files_in("train").files
    assert folder.listed("train/a.tar") == listed
    assert listed.version


def test_a_bucket_is_a_dataset_of_its_own(s3_bucket: str) -> None:
    bucket, prefix = s3_bucket.removeprefix("s3://"), f"{uuid4().hex}/my flowers"
    client = boto3.client("s3")
    for wnid in ("rose", "tulip"):
        for number in range(5):
            key = f"{prefix}/{wnid}/{number} ü.png"
            client.put_object(Bucket=bucket, Key=key, Body=png(number))
    client.put_object(Bucket=bucket, Key=f"{prefix}/", Body=b"")
    found = recommend(f"{s3_bucket}/{prefix}/", [], Machine("cpu", 2**33))
    data = found.config.data
    assert (data.name, data.path) == ("my-flowers", f"{s3_bucket}/{prefix}")
    assert (data.train, data.split, data.num_classes) == (".", "fraction:0.2", 2)
    assert found.source.facts.smallest == 5
    assert ingest(data, Store("memory://own")).count_readable("train") == 8
