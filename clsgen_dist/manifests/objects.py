"""Manifests as `kubectl kustomize` prints them, the pods that they make, and quantities."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from clsgen_dist.errors import ConfigError

#: One object of a stream, as plain values.
Manifest = Mapping[str, Any]

#: Kinds whose pods stand at spec.template.
_TEMPLATE_KINDS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job")

_UNITS = {
    **{"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15},
    **{"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50},
}


@dataclass(frozen=True)
class Fault:
    """A broken rule: the place it is about, and what to say."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(frozen=True)
class Pod:
    """One template of pods.

    Attributes:
        place: object and group, for messages.
        owner: the object that it stands in.
        role: plain; or submitter, head or worker of a Ray cluster.
        metadata: of the template.
        spec: of the template.
        num_replicas: pods that are made of it, at most.
        group: the Ray group that it belongs to; empty for others.
    """

    place: str
    owner: Manifest
    role: str
    metadata: Manifest
    spec: Manifest
    num_replicas: int = 1
    group: Manifest | None = None

    @property
    def is_ray_node(self) -> bool:
        return self.role in ("head", "worker")

    @property
    def labels(self) -> Mapping[str, str]:
        return dict(self.metadata.get("labels") or {})

    @property
    def containers(self) -> list[Manifest]:
        """All that run as long as the pod does; those that run before it are `init_containers`."""
        return list(self.spec.get("containers") or [])

    @property
    def init_containers(self) -> list[Manifest]:
        return list(self.spec.get("initContainers") or [])

    @property
    def volumes(self) -> dict[str, Manifest]:
        return {volume["name"]: volume for volume in self.spec.get("volumes") or []}


def read_manifests(text: str) -> list[Manifest]:
    """The objects of a stream of YAML documents.

    Raises:
        ConfigError: not YAML, or a document that is no object of Kubernetes.
    """
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise ConfigError(f"the manifests are not YAML: {getattr(error, 'problem', None) or error}") from None
    for number, document in enumerate(documents, 1):
        is_object = isinstance(document, dict) and isinstance(document.get("metadata"), dict)
        if not is_object or not all(document.get(key) for key in ("apiVersion", "kind")):
            raise ConfigError(
                f"document {number} of the manifests has no apiVersion, kind or metadata; give what kubectl kustomize "
                "FOLDER prints, or the folder"
            )
    if not documents:
        raise ConfigError("the manifests hold no object; give what kubectl kustomize FOLDER prints, or the folder")
    return documents


def name_of(manifest: Manifest) -> str:
    """Kind and name, as messages say it."""
    return f"{manifest['kind']}/{manifest['metadata'].get('name', '?')}"


def of_kind(manifests: Sequence[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def ray_cluster_of(manifest: Manifest) -> Manifest | None:
    """The description of the Ray cluster that an object makes; None for objects that make none."""
    spec = manifest.get("spec") or {}
    found = {"RayJob": spec.get("rayClusterSpec"), "RayCluster": spec}.get(manifest["kind"])
    return found if isinstance(found, Mapping) else None


def pods_of(manifests: Sequence[Manifest]) -> list[Pod]:
    """Every template of pods in a stream."""
    return [pod for manifest in manifests for pod in _pods(manifest)]


def _pods(manifest: Manifest) -> Iterator[Pod]:
    kind, place, spec = manifest["kind"], name_of(manifest), manifest.get("spec") or {}
    if kind == "Pod":
        yield Pod(place, manifest, "plain", manifest["metadata"], spec)
    elif kind in _TEMPLATE_KINDS:
        replicas = spec.get("parallelism" if kind == "Job" else "replicas", 1)
        yield _pod(place, manifest, "plain", spec["template"], replicas)
    elif kind == "CronJob":
        yield _pod(place, manifest, "plain", spec["jobTemplate"]["spec"]["template"])
    cluster = ray_cluster_of(manifest)
    if spec.get("submitterPodTemplate"):
        yield _pod(f"{place} submitter", manifest, "submitter", spec["submitterPodTemplate"])
    if cluster is not None:
        head = cluster["headGroupSpec"]
        yield _pod(f"{place} head", manifest, "head", head["template"], group=head)
        for group in cluster.get("workerGroupSpecs") or []:
            replicas = max(group.get("replicas", 1), group.get("maxReplicas", 0))
            yield _pod(f"{place} {group['groupName']}", manifest, "worker", group["template"], replicas, group)


def _pod(
    place: str, owner: Manifest, role: str, template: Manifest, replicas: int = 1, group: Manifest | None = None
) -> Pod:
    return Pod(place, owner, role, template.get("metadata") or {}, template["spec"], replicas, group)


def amount(quantity: object) -> float:
    """A quantity of Kubernetes as a number: "500m" is 0.5, "4Gi" is 4294967296.

    Raises:
        ConfigError: it is none.
    """
    found = re.fullmatch(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)(m|k|[KMGTP]i|[MGTP]|)", str(quantity))
    if found is None:
        raise ConfigError(f"{quantity!r}: expected a quantity, as 500m, 2 or 4Gi")
    return float(found[1]) * _UNITS[found[2]]


def resources(container: Manifest, which: str) -> dict[str, str]:
    """The requests or limits of a container, by name."""
    return dict((container.get("resources") or {}).get(which) or {})


def gpus_of(pod: Pod, which: str = "limits") -> int:
    """GPUs that one pod of a template gets."""
    return sum(int(amount(resources(c, which).get("nvidia.com/gpu", 0))) for c in pod.containers)


def environment(container: Manifest) -> dict[str, str]:
    """Variables of a container whose values stand in the manifest."""
    return {entry["name"]: str(entry["value"]) for entry in container.get("env") or [] if "value" in entry}
