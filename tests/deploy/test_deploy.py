from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.deployment import DEPLOY, FROM_ENVIRONMENT, TELEMETRY, read


def test_no_file_holds_a_literal_credential() -> None:
    for path in filter(Path.is_file, DEPLOY.rglob("*")):
        text = FROM_ENVIRONMENT.sub("", path.read_text(encoding="utf-8"))
        assert not re.search(r"://[^/\s:@]*:[^/\s@]+@", text), f"{path.name}: a password in a URL"
        assert not re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN", text), f"{path.name}: a key"


@pytest.mark.parametrize("switch", TELEMETRY)
def test_telemetry_is_off_in_the_image(switch: str) -> None:
    assert switch in read("Dockerfile")


def test_the_image_installs_hashed_requirements_and_is_not_root() -> None:
    lines = read("Dockerfile").splitlines()
    *locks, own = (line for line in lines if line.startswith("RUN pip install"))
    assert len(locks) == 2
    assert all("--require-hashes -r " in line for line in locks)
    assert {"--no-deps", "--no-build-isolation"} <= set(own.split())
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["distill"]


def test_what_the_image_copies_is_sent_to_the_build_and_exists() -> None:
    lines = read("Dockerfile.dockerignore").splitlines()
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copies = [line for line in read("Dockerfile").splitlines() if line.startswith("COPY ")]
    defaults = dict(re.findall(r"^ARG (\w+)=(\S+)$", read("Dockerfile"), re.MULTILINE))
    copied = {
        re.sub(r"\$\{(\w+)\}", lambda each: defaults[each[1]], name)
        for line in copies
        for name in line.split()[1:-1]
    }
    assert copied == sent
    assert all((DEPLOY.parent / name).exists() for name in copied)
