"""Confinement of the image, and of the pods that Prefect's charts make from our values."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.support import kustomize, manifest_rules
from tests.support.deployment import DEPLOY, read

PINNED = re.compile(r"[\w./:-]+@\$\{[A-Z]+_DIGEST\}")


def values(chart: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(read(f"k8s/prefect/{chart}-values.yaml"))
    return found


def test_every_image_is_pinned_by_its_digest() -> None:
    """What is not known here has to be given: without a digest, a build fails."""
    lines = read("Dockerfile").splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    outside = [base for base in bases if base not in stages(lines)]
    assert outside
    assert [base for base in outside if not PINNED.fullmatch(base)] == []
    defaults = [line for line in lines if line.startswith("ARG ") and "DIGEST" in line]
    assert defaults == ["ARG PYTHON_DIGEST"]


def stages(lines: list[str]) -> set[str]:
    return {line.split(" AS ")[1] for line in lines if line.startswith("FROM ") and " AS " in line}


def test_every_pod_meets_the_restricted_standard_of_kubernetes() -> None:
    for folder in sorted((DEPLOY / "k8s" / "overlays").iterdir()):
        pods = list(manifest_rules.pods(kustomize.render(folder)))
        assert len(pods) >= 3
        assert [p for pod in pods for p in manifest_rules.pod_problems(pod)] == []


def test_pods_run_as_the_user_of_the_image() -> None:
    (user,) = re.findall(r"useradd .*--uid (\d+) distill", read("Dockerfile"))
    assert int(user) == manifest_rules.USER


@pytest.mark.parametrize("chart", ["server", "worker"])
def test_a_chart_gets_confined_containers_and_secrets_that_are_documented(chart: str) -> None:
    tree = values(chart)
    part = tree[chart]
    context = part["containerSecurityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert manifest_rules.secret_problems([tree]) == []
    auth = part.get("selfHostedServerApiConfig", part)["basicAuth"]
    assert auth["enabled"] is True
    secrets = manifest_rules.documented_secrets()
    assert "auth-string" in secrets[auth["existingSecret"]]
    if chart == "server":
        assert tree["postgresql"] == {"enabled": False}  # a database of yours
        assert tree["secret"]["create"] is False
        assert "connection-string" in secrets[tree["secret"]["name"]]


def test_the_worker_runs_our_image_and_submits_to_the_cluster() -> None:
    worker = values("worker")["worker"]
    image = "{repository}:{prefectTag}".format(**worker["image"])
    assert manifest_rules.PINNED.fullmatch(image)
    variables = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in worker["extraEnvVars"]}
    assert variables["AWS_SECRET_ACCESS_KEY"]["optional"] is True  # a role may take its place
    assert "DISTILL_SUBMIT=http://distill-head-svc:8265" in read("k8s/README.md")
    assert worker["podLabels"] == {"distill/submits": "true"}
