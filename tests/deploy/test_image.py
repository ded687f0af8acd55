"""The image: what it installs, in which layers, what it tells about itself; and its rehearsal."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from datetime import date
from types import ModuleType

import pytest
import yaml

from tests.support.deployment import DEPLOY, read
from tests.support.repository import ROOT

DEVELOPMENT, RUNTIME, TORCH = (f"requirements{kind}.lock" for kind in ("", "-runtime", "-torch"))
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def pins(lock: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / lock).read_text(encoding="utf-8")))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DEPLOY / "image" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("part", "whole"), [(RUNTIME, DEVELOPMENT), (TORCH, RUNTIME)])
def test_a_lock_of_the_image_is_a_part_of_a_larger_one(part: str, whole: str) -> None:
    assert 0 < len(pins(part)) < len(pins(whole))
    assert pins(part).items() <= pins(whole).items()
    text = (ROOT / part).read_text(encoding="utf-8")
    hashes = set(HASH.findall(text))
    assert len(hashes) >= len(pins(part))
    assert hashes <= set(HASH.findall((ROOT / whole).read_text(encoding="utf-8")))


def test_the_image_has_no_tools_of_development() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    tools = {re.split(r"[\[><=]", each)[0].lower() for each in extras["dev"]}
    assert {"pytest", "moto", "ruff", "mypy"} <= tools
    assert not {name.lower() for name in pins(RUNTIME)} & tools


def test_torch_and_cuda_have_a_layer_of_their_own() -> None:
    heavy = {"torch", "torchvision", "triton", "numpy", "pillow", "setuptools"}
    names = set(pins(TORCH))
    assert {"torch", "triton", "setuptools"} <= names  # setuptools builds distill
    assert any(name.startswith("nvidia-cudnn") for name in names)
    assert not names & {"ray", "prefect", "pyarrow", "pydantic"}
    gpu = {n for n in pins(RUNTIME) if n.startswith(("nvidia-", "cuda-")) or n in heavy}
    assert gpu <= names
    lines = read("Dockerfile").splitlines()
    first, second = (
        line for line in lines if line.startswith("RUN pip install --no-deps --require-hashes")
    )
    assert "${TORCH_LOCK}" in first
    assert "${RUNTIME_LOCK}" in second
    assert f"ARG TORCH_LOCK={TORCH}" in lines
    assert f"ARG RUNTIME_LOCK={RUNTIME}" in lines


def test_the_image_has_an_init_and_labels_and_writes_to_tmp() -> None:
    text = read("Dockerfile")
    assert 'ENTRYPOINT ["/usr/bin/tini", "-g", "--"]' in text
    for label in ("title", "licenses", "version", "revision", "base.name"):
        assert f"org.opencontainers.image.{label}=" in text
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"ARG VERSION={version['version']}" in text
    for name in ("PREFECT_HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME"):
        assert re.search(rf"{name}=/tmp/\w+( |$)", text, re.MULTILINE)  # Prefect makes no parents


def test_the_bill_of_materials_lists_what_the_lock_installs_here() -> None:
    lock = (ROOT / RUNTIME).read_text(encoding="utf-8")
    bill = script("sbom").document(lock)
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    listed = {each["name"]: each["version"] for each in bill["components"]}
    assert listed["torch"] == pins(RUNTIME)["torch"]
    assert "pywin32" in pins(RUNTIME)
    assert "pywin32" not in listed  # of Windows alone
    assert set(listed) <= {
        name.lower().replace("_", "-").replace(".", "-") for name in pins(RUNTIME)
    }
    references = [each["bom-ref"] for each in bill["components"]]
    assert len(set(references)) == len(references) > 100
    for each in bill["components"]:
        assert each["purl"] == f"pkg:pypi/{each['name']}@{each['version']}"
        assert each["externalReferences"][0]["hashes"]
    assert script("sbom").document(lock) == bill


def test_a_package_without_a_pin_has_no_bill_of_materials() -> None:
    with pytest.raises(ValueError, match="torch is not pinned"):
        script("sbom").document("torch>=2\n")


def test_the_rehearsal_executes_every_line_that_installs() -> None:
    text = read("Dockerfile")
    steps = "\n".join(script("steps").steps(text, {"COMPILER": "g++"}))
    assert steps.count("/bin/sh -ec") == len(re.findall("^RUN ", text, re.MULTILINE)) == 5
    assert "--no-install-recommends tini bash g++" in steps
    assert "pip install --no-deps --require-hashes -r requirements-torch.lock" in steps
    assert 'cp -r "$here/deploy/image/sbom.py" "$root/opt/distill/sbom.py"' in steps
    assert "PREFECT_HOME=/tmp/prefect" in steps


def test_the_rehearsal_stops_at_a_line_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="VOLUME: not known here"):
        script("steps").steps("FROM x\nVOLUME /data\n", {})


def test_every_image_of_others_is_listed() -> None:
    listed = {each["name"]: each for each in yaml.safe_load(read("images.yaml"))["images"]}
    server = yaml.safe_load(read("k8s/prefect/server-values.yaml"))["global"]["prefect"]["image"]
    named = {"{repository}:{prefectTag}".format(**server)}
    named |= set(re.findall(r"^FROM ([^\s@]+)@", read("Dockerfile"), re.MULTILINE))
    assert named <= set(listed)
    for name, image in listed.items():
        assert re.search(r":[\w.-]*\d[\w.-]*$", name), f"{name} has no version"
        assert image["seen"] is None or isinstance(image["seen"], date)
        assert image["source"]
        assert all((ROOT / path).is_file() for path in image["used"])
    prefect = pins(RUNTIME)["prefect"]
    assert server["prefectTag"].startswith(f"{prefect}-")
