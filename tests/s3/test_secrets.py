"""Secrets of the environment are in nothing that a run writes, logs or leaves behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_core.storage.store import Store
from tests.support.pipeline import TINY
from tests.support.repository import ROOT

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("DISTILL_TEST_S3", "moto") != "moto",
        reason="needs a server that takes any credentials",
    ),
]

RAY_TOKEN = "5ec7e7a1" * 8
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "IQoJb3JpZ2luX2VjEXAMPLETOKEN",
    "PREFECT_API_KEY": "pnu_plantedplantedplantedplanted0000",
    "PREFECT_API_AUTH_STRING": "distill:planted-password",
    "FSSPEC_GCS_TOKEN": "planted/secret/of/fsspec",
    "HF_TOKEN": "hf_plantedplantedplanted",
}
# The command line, with a token for Ray that is known here, and with a copy of the folder of Ray's
# session, which a driver removes at its end.
DRIVER = """
import os, secrets, shutil
from pathlib import Path

random_token, remove = secrets.token_hex, shutil.rmtree

def token(count=None):
    if count != 32:
        return random_token(count)
    Path(os.environ["KEPT"], "token").touch()
    return os.environ["PLANTED_RAY"][::-1]

def others(folder, names):
    paths = {name: Path(folder, name) for name in names}
    return [name for name, path in paths.items() if not (path.is_dir() or path.is_file())]

def keep(path, *arguments, **options):
    if Path(path).name.startswith("ray-"):
        kept = Path(os.environ["KEPT"], Path(path).name)
        shutil.copytree(path, kept, symlinks=True, ignore=others)
    remove(path, *arguments, **options)

secrets.token_hex, shutil.rmtree = token, keep
from flows.cli import main
main()
"""


def texts(tree: Any) -> Iterator[str]:
    """Yield every text in the value of a Parquet file."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from (*texts(key), *texts(value))
    elif isinstance(tree, list):
        for value in tree:
            yield from texts(value)


def decoded(data: bytes) -> bytes:
    """Return the metadata and the texts of a Parquet file, which are compressed in it."""
    file = pq.ParquetFile(pa.BufferReader(data))
    metadata = file.schema_arrow.metadata or {}
    rows = "\n".join(texts(file.read().to_pylist()))
    return b"\n".join((*metadata, *metadata.values(), rows.encode(errors="replace")))


def stored(store: Store) -> dict[str, bytes]:
    """Return every object of a store by its address, those of Parquet also decoded."""
    objects = {store.uri(file.path): store.read(file.path) for file in store.files("")}
    tables = {f"{p} (decoded)": decoded(d) for p, d in objects.items() if p.endswith(".parquet")}
    return objects | tables


def written(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its path."""
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def holding(places: dict[str, bytes], secret: str) -> list[str]:
    """Return the places that hold a secret."""
    return [place for place, data in places.items() if secret.encode() in data]


def test_no_secret_of_the_environment_is_in_what_a_run_writes_and_logs(
    s3_store: Store, tmp_path: Path
) -> None:
    home, kept = tmp_path / "home", tmp_path / "kept"
    home.mkdir()
    kept.mkdir()
    unset = re.compile(r"(AWS_(SECRET|SESSION|PROFILE)|PREFECT_|RAY_|FSSPEC_)")
    environment = {
        **{name: value for name, value in os.environ.items() if not unset.match(name)},
        **SECRETS,
        "PLANTED_RAY": RAY_TOKEN[::-1],
        "KEPT": str(kept),
        "HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PYTHONPATH": str(ROOT),
    }
    said: dict[str, bytes] = {}

    def distill(*words: str, code: int = 0) -> None:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, *words, *([] if words[0] == "plan" else where)],
            cwd=home,
            env=environment,
            capture_output=True,
            timeout=300,
            check=False,
        )
        said[" ".join(words)] = done.stdout + done.stderr
        assert done.returncode == code, (done.stdout + done.stderr).decode()

    where = ("--store", s3_store.url)
    distill("run", "digits-demo", *TINY, "--name", "planted", "--workers", "1")
    distill(
        "run",
        "digits-demo",
        *TINY,
        "squeeze.training.optimizer.lr=1e30",
        "--name",
        "broken",
        "--local",
        code=1,
    )
    distill("plan", "digits-demo")
    distill("status", "planted")
    distill("verify", "planted")
    distill("report", "planted")
    distill("doctor")

    places = {**stored(s3_store), **written(home), **written(kept), **said}
    for name, secret in {**SECRETS, "RAY_AUTH_TOKEN": RAY_TOKEN}.items():
        assert holding(places, secret) == [], name
    # The same search finds the name of the run in each kind of place.
    for pattern in (r"run\.yaml", r"\.parquet", r"prefect\.db", r"kept/ray-.*\.(log|out|err)"):
        assert any(re.search(pattern, place) for place in places), pattern
    named = holding(places, "planted")
    assert any("runs/planted/" in place for place in named)
    assert any("prefect.db" in place for place in named)
    assert holding(written(kept), "raylet")
    assert (kept / "token").exists()
