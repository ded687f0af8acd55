"""The manifests of deploy/k8s: schemas, pins, secrets, confinement; bad copies are caught."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from copy import deepcopy
from typing import Any

import pytest
import typer
import yaml

from distill_core.config.load import load_run
from flows import cli
from tests.support import kuberay, kustomize, manifest_rules
from tests.support.deployment import DEPLOY
from tests.support.real_data import data_folder

K8S = DEPLOY / "k8s"
OVERLAYS = ("spot", "spot-once", "on-premises", "on-premises-once")
KUBERNETES = ("1.31", "1.37")  # podFailurePolicy is stable since 1.31
Manifest = dict[str, Any]


def rendered(overlay: str) -> list[Manifest]:
    return kustomize.render(K8S / "overlays" / overlay)


def in_order(manifests: list[Manifest]) -> list[Manifest]:
    return sorted(manifests, key=lambda each: (each["kind"], each["metadata"]["name"]))


def schema_problems(manifests: list[Manifest]) -> list[str]:
    """Return what the schemas of Kubernetes and KubeRay refuse, strictly: a misspelt key is one."""
    validator = pytest.importorskip("kubernetes_validate", reason="run `make setup`")
    custom = [each for each in manifests if each["kind"] in manifest_rules.CUSTOM]
    core = [each for each in manifests if each not in custom]
    core += [pod for each in custom for pod in kuberay.pods(each)]
    found = [p for each in custom for v in kuberay.SUPPORTED for p in kuberay.problems(each, v)]
    for version in KUBERNETES:
        for manifest in core:
            try:
                validator.validate(manifest, version, strict=True)
            except (validator.ValidationError, validator.SchemaNotFoundError) as error:
                found.append(f"{manifest['kind']}: {error}")
    return found


def rule_problems(manifests: list[Manifest]) -> list[str]:
    found = manifest_rules.secret_problems(manifests)
    found += [p for pod in manifest_rules.pods(manifests) for p in manifest_rules.pod_problems(pod)]
    for manifest in manifests:
        if manifest["kind"] in manifest_rules.CUSTOM:
            found += manifest_rules.size_problems(manifest)
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_meets_its_schema_strictly(overlay: str) -> None:
    assert schema_problems(rendered(overlay)) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_meets_our_rules(overlay: str) -> None:
    assert rule_problems(rendered(overlay)) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubectl_renders_what_is_checked(overlay: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    command = ["kubectl", "kustomize", str(K8S / "overlays" / overlay)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert in_order(list(yaml.safe_load_all(printed))) == in_order(rendered(overlay))


@pytest.mark.parametrize("overlay", ["spot", "spot-once"])
def test_older_versions_of_kuberay_lack_fields(overlay: str) -> None:
    (ray,) = [each for each in rendered(overlay) if each["kind"].startswith("Ray")]
    assert "authOptions.secretName needs KubeRay 1.6" in str(kuberay.problems(ray, (1, 5)))
    for text in ((K8S / "README.md"), (K8S / "base" / "raycluster.yaml")):
        assert "KubeRay 1.6" in text.read_text(encoding="utf-8")


@pytest.mark.parametrize(("kind", "file"), [("RayCluster", "rayclusters"), ("RayJob", "rayjobs")])
def test_the_table_of_fields_agrees_with_the_definition_of_kuberay(kind: str, file: str) -> None:
    path = data_folder("schemas") / f"ray.io_{file}.yaml.gz"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    definition = yaml.load(gzip.decompress(path.read_bytes()), Loader=loader)
    (version,) = [each for each in definition["spec"]["versions"] if each["name"] == "v1"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for field, kinds in kuberay.FIELDS[kind].items():
        schema = spec
        for part in field.split("."):
            schema = schema["properties"][part.removesuffix("[]")]
            schema = schema["items"] if part.endswith("[]") else schema
        if kinds[0] in kuberay.TYPES:
            assert (schema["type"],) == kinds, field
        elif schema["type"] == "string" and field != "submissionMode":
            assert set(schema["enum"]) == set(kinds), field


POD = "/spec/jobTemplate/spec/template/spec"
CONTAINER = f"{POD}/containers/0"
WORKER = "/spec/workerGroupSpecs/0"
HEAD = "/spec/headGroupSpec/template/spec/containers/0"
STATED: list[tuple[str, str, str, Any]] = [
    ("RayCluster", "add", "/spec/enableInTreeAutoscalling", True),
    ("RayCluster", "add", "/spec/authOptions/secretname", "distill-ray"),
    ("RayCluster", "replace", f"{WORKER}/replicas", "two"),
    ("RayCluster", "replace", f"{WORKER}/minReplicas", 9),
    ("RayCluster", "replace", "/spec/enableInTreeAutoscaling", "yes"),
    ("RayCluster", "replace", "/spec/autoscalerOptions/version", "v3"),
    ("RayCluster", "replace", "/spec/headGroupSpec/rayStartParams/num-cpus", 0),
    ("RayCluster", "remove", "/spec/headGroupSpec/rayStartParams/object-store-memory", None),
    ("RayCluster", "remove", "/spec/authOptions/secretName", None),
    ("RayCluster", "replace", "/spec/authOptions/secretName", "distill-rays"),
    ("RayCluster", "replace", "/spec/authOptions/mode", "disabled"),
    ("RayCluster", "replace", f"{HEAD}/image", "REGISTRY/distill:latest"),
    ("RayCluster", "replace", f"{HEAD}/env/0/valueFrom/secretKeyRef/key", "auth_string"),
    ("RayCluster", "add", f"{HEAD}/resorces", {}),
    ("RayCluster", "remove", f"{HEAD}/securityContext", None),
    ("RayCluster", "remove", "/spec/autoscalerOptions/securityContext", None),
    ("RayCluster", "remove", f"{WORKER}/template/spec/securityContext", None),
    ("RayCluster", "replace", "/apiVersion", "ray.io/v1alpha1"),
    ("RayJob", "add", "/spec/submisionMode", "HTTPMode"),
    ("RayJob", "add", "/spec/shutdownAfterJobFinishes", True),
    ("RayJob", "replace", "/spec/backoffLimit", "0"),
    ("RayJob", "replace", "/spec/deletionStrategy/deletionRules/0/policy", "DeleteWorkers"),
    ("RayJob", "replace", "/spec/deletionStrategy/deletionRules/0/condition/jobStatus", "DONE"),
    ("RayJob", "remove", "/spec/deletionStrategy/deletionRules/0/condition/jobStatus", None),
    ("RayJob", "replace", "/spec/submitterPodTemplate/spec/containers/0/image", "distill"),
    ("CronJob", "add", "/spec/sheduleZone", "Etc/UTC"),
    ("CronJob", "replace", "/spec/jobTemplate/spec/backoffLimit", "6"),
    ("CronJob", "replace", f"{CONTAINER}/image", "REGISTRY/distill"),
    ("CronJob", "replace", f"{CONTAINER}/env/0/valueFrom/secretKeyRef/name", "distill-token"),
    ("CronJob", "remove", f"{CONTAINER}/env/0/valueFrom/secretKeyRef/name", None),
    ("CronJob", "replace", f"{CONTAINER}/envFrom/1/secretRef/name", "distill-stores"),
    ("CronJob", "replace", f"{CONTAINER}/securityContext/readOnlyRootFilesystem", False),
    ("CronJob", "remove", f"{CONTAINER}/securityContext", None),
    ("CronJob", "remove", f"{CONTAINER}/resources/limits/memory", None),
    ("CronJob", "replace", f"{CONTAINER}/volumeMounts/0/mountPath", "/var/tmp"),
    ("CronJob", "add", f"{POD}/hostNetwork", True),
    ("PodDisruptionBudget", "replace", "/spec/minAvailable", [1]),
    ("NetworkPolicy", "add", "/spec/ingres", []),
    ("ServiceAccount", "add", "/automountToken", True),
    ("ConfigMap", "replace", "/data/PREFECT_FLOWS_HEARTBEAT_FREQUENCY", 30),
    ("Namespace", "add", "/labels", {}),
]


@pytest.mark.parametrize("mutation", STATED, ids=lambda each: f"{each[1]} {each[0]}{each[2]}")
def test_a_bad_copy_is_caught(mutation: tuple[str, str, str, Any]) -> None:
    kind, op, path, value = mutation
    manifests = deepcopy(rendered("spot-once" if kind == "RayJob" else "spot"))
    manifest = next(each for each in manifests if each["kind"] == kind)
    kustomize.apply(manifest, {"op": op, "path": path, "value": value})
    assert rule_problems([manifest]) + schema_problems([manifest])


def test_a_job_is_tried_again_only_after_a_loss_and_an_eviction() -> None:
    """Exit code 75 and a disruption are tried again; everything else would fail again."""
    for manifest in rendered("spot"):
        if manifest["kind"] == "CronJob":
            job = manifest["spec"]["jobTemplate"]["spec"]
            ignore, fail = job["podFailurePolicy"]["rules"]
            assert ignore["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
            assert fail["onExitCodes"]["operator"] == "NotIn"
            assert fail["onExitCodes"]["values"] == [75, 137, 143]
            (container,) = job["template"]["spec"]["containers"]
            assert fail["onExitCodes"]["containerName"] == container["name"]
            assert job["template"]["spec"]["restartPolicy"] == "Never"  # the policy requires it


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_head_stays_and_runs_no_work(overlay: str) -> None:
    (ray,) = [each for each in rendered(overlay) if each["kind"].startswith("Ray")]
    cluster = ray["spec"].get("rayClusterSpec", ray["spec"])
    head, (worker,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == head["rayStartParams"]["num-gpus"] == "0"
    chosen = head["template"]["spec"]["nodeSelector"]
    assert chosen != worker["template"]["spec"].get("nodeSelector")
    labels = head["template"]["metadata"]["labels"]
    budgets = kustomize.read_all(K8S / "base" / "disruption.yaml")
    selected = [each["spec"]["selector"]["matchLabels"] for each in budgets]
    assert sum(each.items() <= labels.items() for each in selected) == 1
    assert all(each["spec"]["minAvailable"] == 1 for each in budgets)
    assert worker["minReplicas"] == 0  # no GPU is held when nothing runs


def test_the_cluster_runs_the_installed_version_of_ray() -> None:
    (cluster,) = kustomize.read_all(K8S / "base" / "raycluster.yaml")
    lock = (DEPLOY.parent / "requirements.lock").read_text(encoding="utf-8")
    assert f"\nray=={cluster['spec']['rayVersion']}" in lock.replace(
        "ray[default,data,train]", "ray"
    )


@pytest.mark.parametrize(("kind", "overlay"), [("CronJob", "spot"), ("RayJob", "spot-once")])
def test_the_commands_have_options_that_distill_has(kind: str, overlay: str) -> None:
    app = typer.main.get_command(cli.app)
    for manifest in (each for each in rendered(overlay) if each["kind"] == kind):
        words = manifest["spec"].get("entrypoint", "").split()
        if kind == "CronJob":
            template = manifest["spec"]["jobTemplate"]["spec"]["template"]
            words = template["spec"]["containers"][0]["args"]
        program, name, preset, *rest = words
        command = app.commands[name]  # type: ignore[attr-defined]
        known = {option for each in command.params for option in each.opts}
        given = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert program == "distill"
        assert "--workers" in given
        assert given <= known
        assert load_run(preset).data.num_classes == 21_841
