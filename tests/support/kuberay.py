"""The fields of KubeRay's resources that deploy/k8s uses, with their types, and a strict check.

The types are those of the custom resource definitions of KubeRay 1.6.0 and 1.7.0, which agree on
them; 1.5 lacks `SINCE_1_6`. Rules that only the operator checks are in `operator_problems`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Manifest = dict[str, Any]

SUPPORTED = ((1, 6), (1, 7))  # the oldest and the newest
TYPES = {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list}
POD = "pod template"
TEXTS = "texts by name"
QUANTITIES = "quantities by name"
SECURITY = "security context"
MOUNTS = "volume mounts"

CLUSTER: dict[str, tuple[Any, ...]] = {
    "rayVersion": ("string",),
    "enableInTreeAutoscaling": ("boolean",),
    "autoscalerOptions.version": ("v1", "v2"),
    "autoscalerOptions.idleTimeoutSeconds": ("integer",),
    "autoscalerOptions.upscalingMode": ("Default", "Aggressive", "Conservative"),
    "autoscalerOptions.resources.requests": (QUANTITIES,),
    "autoscalerOptions.resources.limits": (QUANTITIES,),
    "autoscalerOptions.securityContext": (SECURITY,),
    "autoscalerOptions.volumeMounts": (MOUNTS,),
    "authOptions.mode": ("disabled", "token"),
    "authOptions.secretName": ("string",),
    "headGroupSpec.rayStartParams": (TEXTS,),
    "headGroupSpec.template": (POD,),
    "workerGroupSpecs[].groupName": ("string",),
    "workerGroupSpecs[].replicas": ("integer",),
    "workerGroupSpecs[].minReplicas": ("integer",),
    "workerGroupSpecs[].maxReplicas": ("integer",),
    "workerGroupSpecs[].idleTimeoutSeconds": ("integer",),
    "workerGroupSpecs[].rayStartParams": (TEXTS,),
    "workerGroupSpecs[].template": (POD,),
}
JOB: dict[str, tuple[Any, ...]] = {
    "entrypoint": ("string",),
    "submissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    "backoffLimit": ("integer",),
    "preRunningDeadlineSeconds": ("integer",),
    "activeDeadlineSeconds": ("integer",),
    "deletionStrategy.deletionRules[].policy": (
        "DeleteCluster",
        "DeleteWorkers",
        "DeleteSelf",
        "DeleteNone",
    ),
    "deletionStrategy.deletionRules[].condition.jobStatus": ("SUCCEEDED", "FAILED"),
    "deletionStrategy.deletionRules[].condition.jobDeploymentStatus": ("Failed",),
    "deletionStrategy.deletionRules[].condition.ttlSeconds": ("integer",),
    "submitterConfig.backoffLimit": ("integer",),
    "submitterPodTemplate": (POD,),
    **{f"rayClusterSpec.{path}": kind for path, kind in CLUSTER.items()},
}
FIELDS = {"RayCluster": CLUSTER, "RayJob": JOB}
PARTS = {"apiVersion", "kind", "metadata", "spec"}
AS_GIVEN = ("resources", "securityContext", "volumeMounts")  # of the autoscaler
SINCE_1_6 = (
    "authOptions.secretName",
    "preRunningDeadlineSeconds",
    "deletionStrategy.deletionRules[].condition.jobDeploymentStatus",
)


def problems(manifest: Manifest, version: tuple[int, int]) -> list[str]:
    """Return what a version of KubeRay would drop or refuse in a RayCluster or a RayJob."""
    kind = manifest["kind"]
    found = [f"{kind}: apiVersion {manifest['apiVersion']}"] * (
        manifest["apiVersion"] != "ray.io/v1"
    )
    found += [f"{kind}: unknown part {k}" for k in manifest.keys() - PARTS]
    found += _unlike(manifest["spec"], "", FIELDS[kind], version)
    return [*found, *operator_problems(manifest)]


def _unlike(
    value: Any, path: str, fields: dict[str, tuple[Any, ...]], version: tuple[int, int]
) -> list[str]:
    kind = fields.get(path)
    if kind is not None:
        if version < (1, 6) and path.removeprefix("rayClusterSpec.") in SINCE_1_6:
            return [f"{path} needs KubeRay 1.6"]
        return [] if fits(value, kind) else [f"{path}: {value!r} is not of {kind}"]
    if path and not any(each.startswith((f"{path}.", f"{path}[]")) for each in fields):
        return [f"{path} is no field"]
    if isinstance(value, list):
        return [p for each in value for p in _unlike(each, f"{path}[]", fields, version)]
    if not isinstance(value, dict):
        return [f"{path}: {value!r} is not an object"]
    return [
        problem
        for key, each in value.items()
        for problem in _unlike(each, f"{path}.{key}".lstrip("."), fields, version)
    ]


def fits(value: Any, kind: tuple[Any, ...]) -> bool:
    """Return whether a value is of a kind of the tables."""
    if kind == (TEXTS,):
        return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    if kind == (QUANTITIES,):
        return isinstance(value, dict) and all(isinstance(v, str | int) for v in value.values())
    if kind in ((POD,), (SECURITY,)):
        return isinstance(value, dict)  # Kubernetes' own, checked by its schema
    if kind == (MOUNTS,):
        return isinstance(value, list)
    if len(kind) == 1 and kind[0] in TYPES:
        return isinstance(value, TYPES[kind[0]]) and (kind[0] == "boolean" or value is not True)
    return value in kind


def pods(manifest: Manifest) -> Iterator[Manifest]:
    """Yield the pods in a RayCluster or a RayJob as manifests of pods.

    The autoscaler's container, which the operator adds, is one of them.
    """
    spec = manifest["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    templates = [each["template"] for each in cluster["workerGroupSpecs"]]
    templates += [spec["submitterPodTemplate"]] if "submitterPodTemplate" in spec else []
    head = cluster["headGroupSpec"]["template"]
    containers = [*head["spec"]["containers"], _autoscaler(cluster)]
    for template in [*templates, head | {"spec": head["spec"] | {"containers": containers}}]:
        metadata = {"name": "pod", **template.get("metadata", {})}
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _autoscaler(cluster: Manifest) -> Manifest:
    image = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
    options = cluster["autoscalerOptions"]
    given = {key: options[key] for key in AS_GIVEN if key in options}
    return {"name": "autoscaler", "image": image, **given}


def groups(cluster: Manifest) -> list[Manifest]:
    """Return the group of the head and those of the workers."""
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def operator_problems(manifest: Manifest) -> list[str]:
    """Return what the operator refuses although the schema allows it (its validation.go)."""
    spec = manifest["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    rules = spec.get("deletionStrategy", {}).get("deletionRules", [])
    found = []
    if cluster.get("enableInTreeAutoscaling"):
        if any(rule.get("policy") == "DeleteWorkers" for rule in rules):
            found.append("DeleteWorkers is not supported with the autoscaler")
        for group in groups(cluster):
            if group["template"]["spec"].get("restartPolicy", "Never") != "Never":
                found.append("with autoscaler v2, pods have restartPolicy Never or none")
    if rules and spec.keys() & {"shutdownAfterJobFinishes", "ttlSecondsAfterFinished"}:
        found.append("deletionRules exclude shutdownAfterJobFinishes and its ttl")
    pairs = [(r.get("policy"), *sorted(r.get("condition", {}).items())[:1]) for r in rules]
    found += ["two deletion rules for one condition"] * (len(set(map(str, pairs))) < len(pairs))
    found += ["each deletion rule has one status"] * any(
        len(r.get("condition", {}).keys() & {"jobStatus", "jobDeploymentStatus"}) != 1
        for r in rules
    )
    for group in cluster["workerGroupSpecs"]:
        low, now, high = (group.get(k) for k in ("minReplicas", "replicas", "maxReplicas"))
        if not (all(isinstance(n, int) for n in (low, now, high)) and 0 <= low <= now <= high):
            found.append(f"replicas {low} <= {now} <= {high}")
    return found
