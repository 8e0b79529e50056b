"""Rules on RayJob and RayCluster that their definitions leave open and KubeRay only finds when they run.

Source: ValidateRayJobSpec, ValidateRayClusterSpec and their parts in ray-operator/controllers/ray/utils/validation.go
of KubeRay v1.7.0; what goes beyond them keeps retries safe and GPUs in use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import yaml

from clsgen_dist.manifests.objects import (
    Fault,
    Manifest,
    Pod,
    amount,
    environment,
    gpus_of,
    name_of,
    of_kind,
    pods_of,
    ray_cluster_of,
    resources,
)

SUBMISSION_MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
_DELETIONS = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
#: KubeRay makes names of its own out of these.
_LONGEST_NAME = {"RayJob": 47, "RayCluster": 53}
_QUEUE = "kueue.x-k8s.io/queue-name"


def ray_faults(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """All broken rules of all Ray jobs and clusters."""
    for manifest in of_kind(manifests, "RayJob", "RayCluster"):
        place, longest = name_of(manifest), _LONGEST_NAME[manifest["kind"]]
        if len(str(manifest["metadata"].get("name", ""))) > longest:
            yield Fault(place, f"the name has more than {longest} characters")
        cluster = ray_cluster_of(manifest)
        if cluster is not None:
            yield from _cluster_faults(place, cluster)
    for job in of_kind(manifests, "RayJob"):
        yield from _job_faults(job)
        yield from _deletion_faults(job)
    for pod in pods_of(manifests):
        if pod.is_ray_node:
            yield from _node_faults(pod)
        if pod.is_ray_node or pod.role == "submitter":
            yield from _token_faults(pod)


def _job_faults(job: Manifest) -> Iterator[Fault]:
    place, spec = name_of(job), job["spec"]
    mode = spec.get("submissionMode", "K8sJobMode")
    retries = spec.get("backoffLimit", 0)
    if mode not in SUBMISSION_MODES:
        yield Fault(place, f"submissionMode {mode}: expected one of {', '.join(SUBMISSION_MODES)}")
    if not spec.get("rayClusterSpec") and not spec.get("clusterSelector"):
        yield Fault(place, "neither rayClusterSpec nor clusterSelector: there is no cluster to run on")
    if retries < 0:
        yield Fault(place, f"backoffLimit is {retries}, expected 0 or more")
    if retries > 0 and (mode == "InteractiveMode" or spec.get("clusterSelector")):
        yield Fault(place, "backoffLimit starts new clusters, which InteractiveMode and clusterSelector cannot")
    if mode == "K8sJobMode" and (spec.get("submitterConfig") or {}).get("backoffLimit") != 0:
        yield Fault(
            place, "submitterConfig.backoffLimit must be 0: a submitter that starts again watches a job that is lost"
        )
    if mode == "K8sJobMode" and not spec.get("submitterPodTemplate"):
        yield Fault(
            place, "no submitterPodTemplate: KubeRay's own has none of the rights and sizes that are wanted here"
        )
    if mode == "SidecarMode":
        for name in ("submitterPodTemplate", "submitterConfig", "clusterSelector"):
            if spec.get(name):
                yield Fault(place, f"{name} cannot go with submissionMode SidecarMode")
    for name in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(name, 1) <= 0:
            yield Fault(place, f"{name} is {spec[name]}, expected 1 or more")
    if spec.get("suspend") and spec.get("clusterSelector"):
        yield Fault(place, "suspend cannot go with clusterSelector")
    waits = "suspend" if spec.get("suspend") else _QUEUE if _QUEUE in (job["metadata"].get("labels") or {}) else None
    if waits and not spec.get("shutdownAfterJobFinishes"):
        yield Fault(place, f"{waits} wants shutdownAfterJobFinishes: true; else its cluster is never given back")
    try:
        yaml.safe_load(spec.get("runtimeEnvYAML", ""))
    except yaml.YAMLError:
        yield Fault(place, "runtimeEnvYAML is not YAML")


def _deletion_faults(job: Manifest) -> Iterator[Fault]:
    place, spec = name_of(job), job["spec"]
    shuts_down, ttl = bool(spec.get("shutdownAfterJobFinishes")), spec.get("ttlSecondsAfterFinished", 0)
    strategy = spec.get("deletionStrategy")
    if ttl < 0:
        yield Fault(place, f"ttlSecondsAfterFinished is {ttl}, expected 0 or more")
    if ttl > 0 and not shuts_down:
        yield Fault(place, "ttlSecondsAfterFinished has no use without shutdownAfterJobFinishes: true")
    if strategy is None:
        if not shuts_down:
            yield Fault(
                place, "nothing ends the cluster when the job is done; set shutdownAfterJobFinishes or deletionRules"
            )
        return
    rules = strategy.get("deletionRules") or []
    by_outcome = [name for name in ("onSuccess", "onFailure") if strategy.get(name)]
    if rules and shuts_down:
        yield Fault(place, "deletionStrategy.deletionRules cannot go with shutdownAfterJobFinishes: true; keep one")
    if rules and by_outcome:
        yield Fault(place, "deletionStrategy has deletionRules and onSuccess or onFailure; keep one kind")
    if not rules and len(by_outcome) != 2:
        yield Fault(place, "deletionStrategy needs deletionRules, or both onSuccess and onFailure")
    policies = [strategy[name].get("policy") for name in by_outcome]
    if shuts_down and "DeleteNone" in policies:
        yield Fault(place, "deletionStrategy DeleteNone cannot go with shutdownAfterJobFinishes: true")
    yield from _rule_faults(place, rules)


def _rule_faults(place: str, rules: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    """One condition a rule, no rule twice, and workers are not deleted after the cluster that they are part of."""
    waits: dict[tuple[str, str], dict[str, int]] = {}
    for number, rule in enumerate(rules):
        condition, policy = rule.get("condition") or {}, str(rule.get("policy"))
        given = [name for name in ("jobStatus", "jobDeploymentStatus") if condition.get(name)]
        seconds = condition.get("ttlSeconds", 0)
        if len(given) != 1:
            yield Fault(place, f"deletionRules[{number}] must have one of jobStatus and jobDeploymentStatus")
            continue
        if seconds < 0:
            yield Fault(place, f"deletionRules[{number}].condition.ttlSeconds is {seconds}, expected 0 or more")
        known = waits.setdefault((given[0], str(condition[given[0]])), {})
        if policy in known:
            yield Fault(place, f"deletionRules[{number}]: {policy} stands there a second time for the same condition")
        known[policy] = seconds
    for (_, status), known in waits.items():
        order = [(known[policy], policy) for policy in _DELETIONS if policy in known]
        for (earlier, first), (later, second) in pairwise(order):
            if later < earlier:
                yield Fault(
                    place, f"deletionRules at {status}: {second} after {later} s comes before {first}, {earlier} s"
                )


def _cluster_faults(place: str, cluster: Manifest) -> Iterator[Fault]:
    if (cluster.get("authOptions") or {}).get("mode") != "token":
        yield Fault(place, "authOptions.mode is not token: whoever reaches the head may run code on the cluster")
    if not cluster.get("rayVersion"):
        yield Fault(place, "no rayVersion, which token authentication needs")
    autoscales = bool(cluster.get("enableInTreeAutoscaling"))
    for group in cluster.get("workerGroupSpecs") or []:
        where = f"{place} {group['groupName']}"
        least, most, replicas = (group.get(name) for name in ("minReplicas", "maxReplicas", "replicas"))
        if not autoscales and (least is None or most is None):
            yield Fault(where, "minReplicas and maxReplicas must both be set while autoscaling is off")
        if any(count is not None and count < 0 for count in (least, most, replicas)):
            yield Fault(where, "replicas, minReplicas and maxReplicas must be 0 or more")
        if least is not None and most is not None and not least <= (least if replicas is None else replicas) <= most:
            yield Fault(where, f"replicas {replicas} must lie between minReplicas {least} and maxReplicas {most}")
        if group.get("resources") and {"num-cpus", "num-gpus", "memory"} & (group.get("rayStartParams") or {}).keys():
            yield Fault(where, "sizes stand in rayStartParams and in resources; keep one")


def _token_faults(pod: Pod) -> Iterator[Fault]:
    mode = environment(pod.containers[0]).get("RAY_AUTH_MODE")
    if mode is None:
        yield Fault(pod.place, "RAY_AUTH_MODE is not set; who differs in it is refused: say token everywhere")
    elif mode != "token":
        yield Fault(pod.place, f"RAY_AUTH_MODE is {mode} and differs from authOptions.mode token")


def _node_faults(pod: Pod) -> Iterator[Fault]:
    group, container = pod.group or {}, pod.containers[0]
    params = group.get("rayStartParams") or {}
    num_gpus = gpus_of(pod)
    if pod.role == "head":
        if str(params.get("num-cpus")) != "0":
            yield Fault(
                pod.place, 'rayStartParams.num-cpus must be "0": a worker on the head takes the cluster down with it'
            )
        if num_gpus:
            yield Fault(pod.place, f"{num_gpus} GPU(s) on the head, which trains nothing; take them away")
        return
    said = params.get("num-gpus")
    if said is not None and int(said) != num_gpus:
        yield Fault(pod.place, f"rayStartParams.num-gpus is {said}, the container gets {num_gpus} GPU(s)")
    cpus, asked = params.get("num-cpus"), resources(container, "requests").get("cpu")
    if cpus is not None and asked is not None and float(cpus) > amount(asked):
        yield Fault(pod.place, f"rayStartParams.num-cpus is {cpus}, the container asks for {asked} CPUs")
