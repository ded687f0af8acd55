"""Parameters of the flows: invalid ones are refused before the store is used."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill_core.config.addresses import check_config
from distill_core.config.load import load_run, preset_names
from distill_core.errors import ConfigError
from distill_core.naming.addresses import STORE_PATTERN, store_address
from flows.orchestration import parameters, prefect_flow
from tasks.execution import Placement

STORES = (
    "/data/runs",
    "/data/a folder/ü",
    "s3://bucket",
    "s3://bucket/a/b",
    "gs://bucket/a@b",
    "abfss://container@account.dfs.core.windows.net/a",
)
NO_STORES = {
    "ftp://host/runs": "ftp",
    "http://host/runs": "http",
    "s3://": "no bucket",
    "s3:///prefix": "no bucket",
    "s3://bucket/../other": r"`\.\.`",
    "s3://key:hush@bucket/prefix": "credentials",
    "abfss://key:hush@account/prefix": "credentials",
    "s3://[bucket": "not an address",
}


def schema(flow: str) -> dict[str, Any]:
    """Return the schema that Prefect's page shows as a form."""
    found: dict[str, Any] = getattr(prefect_flow, flow).parameters.model_dump()
    return found


@pytest.mark.parametrize("url", [*STORES, "/data/../runs", "./out", "memory://here"])
def test_a_store_is_a_folder_or_a_bucket(url: str) -> None:
    store_address(url)


@pytest.mark.parametrize(("url", "why"), NO_STORES.items())
def test_invalid_stores_are_refused_without_repeating_a_secret(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        store_address(url)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("flow", ["distill", "resume", "redistill"])
def test_the_form_refuses_invalid_stores(flow: str) -> None:
    pattern = schema(flow)["properties"]["store"]["pattern"]
    assert pattern == STORE_PATTERN
    assert all(re.search(pattern, url) for url in STORES)
    kept_back = [url for url in NO_STORES if ".." not in url and "[" not in url]
    assert not any(re.search(pattern, url) for url in [*kept_back, "./out", "out"])


def test_the_form_offers_the_presets_and_describes_each_field() -> None:
    fields = schema("distill")["properties"]
    assert fields["preset"]["anyOf"][0]["enum"] == list(preset_names())
    assert all(field["description"] for field in fields.values())
    assert schema("distill")["required"] == ["store"]
    assert schema("resume")["required"] == ["run", "store"]


@pytest.mark.parametrize("text", ["3", "3,17-20", "3, 4"])
def test_the_form_takes_lists_of_shards(text: str) -> None:
    assert re.search(schema("resume")["properties"]["shards"]["anyOf"][0]["pattern"], text)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"preset": None}, "preset: missing"),
        ({"preset": "sre2l-cifar11"}, "no such preset"),
        ({"overrides": ["ipc=0"]}, "ipc = 0"),
        ({"overrides": ["ipc=-1"]}, "ipc = -1"),
        ({"overrides": ["recover.lrr=1"]}, "no such key"),
        ({"overrides": ["data.path=s3://key:hush@bucket/images"]}, "data.path"),
    ],
)
def test_an_invalid_config_is_refused(wrong: dict[str, Any], words: str) -> None:
    said: dict[str, Any] = {"preset": "digits-demo", "overrides": [], **wrong}
    with pytest.raises(ConfigError, match=words) as refused:
        parameters.resolved(said["preset"], said["overrides"])
    assert "hush" not in str(refused.value)


def test_a_config_overrides_a_preset() -> None:
    config = load_run("digits-demo", ["ipc=3"])
    assert parameters.resolved("cda-in1k", ["ipc=7"], config) == config


def test_credentials_in_a_config_are_refused_by_key() -> None:
    config = load_run("digits-demo", ["squeeze.checkpoint=https://host/teacher.pth"])
    secret = "https://me:hush@host/teacher.pth"
    config = config.model_copy(
        update={"squeeze": config.squeeze.model_copy(update={"checkpoint": secret})}
    )
    with pytest.raises(ConfigError, match=r"^squeeze\.checkpoint: .*credentials"):
        check_config(config)


def test_relative_paths_start_at_the_folder_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pool = "squeeze.pool=[{model: {name: resnet18_small}, checkpoint: b.pth}]"
    teachers = ("squeeze.training=null", "squeeze.checkpoint=../a.pth", pool)
    config = load_run("digits-demo", ["data.path=images", *teachers])
    absolute, local = parameters.with_absolute_paths(config)
    assert local == {
        "data.path": f"{tmp_path}/images",
        "squeeze.checkpoint": f"{tmp_path.parent}/a.pth",
        "squeeze.pool[0].checkpoint": f"{tmp_path}/b.pth",
    }
    assert absolute.data.path == local["data.path"]
    assert absolute.squeeze.pool[0].checkpoint == local["squeeze.pool[0].checkpoint"]
    assert parameters.with_absolute_paths(absolute) == (absolute, local)
    package = ["squeeze.training=null", "squeeze.checkpoint=package:efficientnet-lite0"]
    for overrides in ([], ["data.path=s3://b/a"], package):
        untouched = load_run("digits-demo", overrides)
        assert parameters.with_absolute_paths(untouched) == (untouched, {})


def test_a_relative_store_is_refused_in_flow_parameters() -> None:
    with pytest.raises(ConfigError, match="relative folder"):
        parameters.placed("out", Placement())
    assert parameters.placed("/out", Placement(workers=2)).workers == 2


@pytest.mark.parametrize("address", ["ray://me:hush@host:10001", "me:hush@host:6379"])
def test_credentials_in_the_address_of_ray_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^ray_address: .*credentials") as refused:
        parameters.placed("/out", Placement(ray_address=address))
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("flow", ["distill", "redistill"])
@pytest.mark.parametrize("secret", ["s3://key:hu/sh@bucket/x", "https://host/x?token=hush"])
def test_the_form_refuses_credentials_in_every_text_that_is_an_address(
    flow: str, secret: str
) -> None:
    """The server checks the form before it stores a run, so no secret gets into its database."""
    fields, parts = schema(flow)["properties"], schema(flow)["definitions"]
    patterns = [fields["store"]["pattern"], fields["overrides"]["items"]["pattern"]]
    for part, key in (
        ("DataConfig", "path"),
        ("SqueezeConfig", "checkpoint"),
        ("PoolMember", "checkpoint"),
        ("Placement", "ray_address"),
    ):
        patterns.append(parts[part]["properties"][key]["anyOf"][0]["pattern"])
    for pattern in patterns:
        assert not any(re.search(pattern, text) for text in (secret, f"data.path={secret}"))
    assert re.search(patterns[1], "data.path=s3://bucket/images")
    assert all(re.search(pattern, "/data/me@home/x") for pattern in patterns[2:-1])
    assert re.search(patterns[-1], "ray://host:10001")
    assert not re.search(patterns[-1], "me:hush@host:10001")


@pytest.mark.parametrize(("flow", "key"), [("distill", "run"), ("redistill", "series")])
@pytest.mark.parametrize("name", ["../x", "a b", "-x", "a\tb", "", "x" * 101])
def test_the_form_and_the_request_refuse_names_that_are_not_allowed(
    flow: str, key: str, name: str
) -> None:
    pattern = schema(flow)["properties"][key]["anyOf"][0]["pattern"]
    assert re.search(pattern, "birds-v0001")
    assert not re.search(pattern, name)
    deployment = SimpleNamespace(name="default", parameters={"store": "/out"})
    with pytest.raises(ConfigError, match=f"{key} name"):
        parameters.completed(deployment, {key: name})  # type: ignore[arg-type]


@pytest.mark.parametrize("shards", ["5-2", "a", "1,,2"])
def test_invalid_shards_are_refused(shards: str) -> None:
    with pytest.raises(ConfigError, match="--shards"):
        parameters.placed("/out", Placement(), shards=shards)


@pytest.mark.parametrize(
    ("device", "num_gpus", "reserved"),
    [("cpu", None, 0.0), ("cuda", None, 1.0), ("cuda", 0.5, 0.5)],
)
def test_the_share_of_a_gpu_follows_the_device_by_default(
    device: str, num_gpus: float | None, reserved: float
) -> None:
    said = Placement.model_validate({"device": device, "num_gpus": num_gpus, "ray_address": ""})
    assert said.gpus == reserved
    assert said.ray_address is None
