"""Rules on pods, whoever makes them: images, rights, sizes, probes, memory to share, time to end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clsgen_dist.manifests.objects import Fault, Manifest, Pod, amount, environment, pods_of, resources

#: What Ray takes to leave a node that is asked to end, where RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S says nothing.
_DRAIN_SECONDS = 30.0
#: What is needed beside it, so that a checkpoint that is being written is written to its end.
_SAVE_SECONDS = 60.0
#: What Kubernetes gives a pod that says nothing.
_GRACE_SECONDS = 30.0

_SERVERS = ("Deployment", "StatefulSet", "DaemonSet")


def pod_faults(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """All broken rules of all pods."""
    for pod in pods_of(manifests):
        yield from _account_faults(pod)
        yield from _rights_faults(pod)
        yield from _ending_faults(pod)
        if pod.is_ray_node:
            yield from _shared_memory_faults(pod)
        for container in [*pod.init_containers, *pod.containers]:
            place = f"{pod.place}, container {container['name']}"
            yield from _image_faults(place, container)
            yield from _size_faults(place, container)
            yield from _container_rights_faults(place, pod, container)
        if pod.owner["kind"] in _SERVERS:
            yield from _probe_faults(pod)


def _image_faults(place: str, container: Manifest) -> Iterator[Fault]:
    image = str(container.get("image", ""))
    if not image:
        yield Fault(place, "no image")
        return
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    if not digest and tag in ("", "latest"):
        yield Fault(place, f"image {image} has no fixed version; pods of one run would differ: give a tag or a digest")


def _account_faults(pod: Pod) -> Iterator[Fault]:
    if pod.spec.get("serviceAccountName", "default") == "default":
        yield Fault(pod.place, "runs under the account default; name one of its own in serviceAccountName")
    if pod.spec.get("automountServiceAccountToken") is not False:
        yield Fault(pod.place, "gets a token for the Kubernetes API; set automountServiceAccountToken: false")


def _rights_faults(pod: Pod) -> Iterator[Fault]:
    context = pod.spec.get("securityContext") or {}
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield Fault(pod.place, "may run as root; set securityContext.runAsNonRoot: true and a runAsUser")
    if (context.get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield Fault(pod.place, "may make any system call; set securityContext.seccompProfile.type: RuntimeDefault")
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(name):
            yield Fault(pod.place, f"{name} shares what belongs to the node; take it away")
    for name, volume in pod.volumes.items():
        if "hostPath" in volume:
            yield Fault(pod.place, f"volume {name} is a path of the node; use a claim or an emptyDir")


def _container_rights_faults(place: str, pod: Pod, container: Manifest) -> Iterator[Fault]:
    context: Mapping[str, Any] = container.get("securityContext") or {}
    if context.get("privileged"):
        yield Fault(place, "is privileged; take it away")
    if context.get("allowPrivilegeEscalation") is not False:
        yield Fault(place, "may gain rights; set securityContext.allowPrivilegeEscalation: false")
    if "ALL" not in ((context.get("capabilities") or {}).get("drop") or []):
        yield Fault(place, "keeps capabilities; set securityContext.capabilities.drop: [ALL]")
    if context.get("readOnlyRootFilesystem") is not True:
        yield Fault(place, "may write into its image; set securityContext.readOnlyRootFilesystem: true")
    elif container in pod.containers:
        mounted = {mount["mountPath"] for mount in container.get("volumeMounts") or [] if not mount.get("readOnly")}
        if "/tmp" not in mounted:  # noqa: S108 - the mount of a pod, not a file of this process
            yield Fault(place, "has a read-only root and no volume at /tmp, where Python and Ray write; mount one")


def _size_faults(place: str, container: Manifest) -> Iterator[Fault]:
    requests, limits = resources(container, "requests"), resources(container, "limits")
    missing = [f"requests.{name}" for name in ("cpu", "memory") if name not in requests]
    missing += ["limits.memory"] if "memory" not in limits else []
    if missing:
        yield Fault(place, f"no resources.{', resources.'.join(missing)}: the scheduler cannot know what it takes")
    for name in sorted(requests.keys() | limits.keys()):
        asked, most = requests.get(name), limits.get(name)
        if "/" in name and (asked is None or most is None or amount(asked) != amount(most)):
            yield Fault(
                place, f"{name}: requests {asked}, limits {most}; a device is not shared, so they must be equal"
            )
        elif asked is not None and most is not None and amount(asked) > amount(most):
            yield Fault(place, f"requests {asked} of {name}, but its limit is {most}")


def _probe_faults(pod: Pod) -> Iterator[Fault]:
    for container in pod.containers:
        for probe in ("readinessProbe", "livenessProbe"):
            if probe not in container:
                yield Fault(f"{pod.place}, container {container['name']}", f"no {probe}: nobody sees when it is stuck")


def _shared_memory_faults(pod: Pod) -> Iterator[Fault]:
    """Workers of one node exchange gradients in /dev/shm, of which a container has 64 MiB by default."""
    container = pod.containers[0]
    mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts") or []}
    volume = pod.volumes.get(mounts.get("/dev/shm", ""), {})  # noqa: S108 - the mount of a pod
    memory = volume.get("emptyDir") or {}
    if memory.get("medium") != "Memory" or "sizeLimit" not in memory:
        yield Fault(pod.place, "no memory at /dev/shm: mount an emptyDir of medium Memory with a sizeLimit")
    elif amount(memory["sizeLimit"]) > amount(resources(container, "limits").get("memory", "1P")):
        yield Fault(pod.place, f"shared memory of {memory['sizeLimit']} counts as memory and is more than the limit")


def _ending_faults(pod: Pod) -> Iterator[Fault]:
    if not pod.is_ray_node:
        return
    drain = float(environment(pod.containers[0]).get("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", _DRAIN_SECONDS))
    grace = float(pod.spec.get("terminationGracePeriodSeconds", _GRACE_SECONDS))
    if grace < drain + _SAVE_SECONDS:
        yield Fault(
            pod.place,
            f"terminationGracePeriodSeconds is {grace:g}; Ray takes up to {drain:g} s to leave and a checkpoint that "
            f"is being written some {_SAVE_SECONDS:g} s more, so give {drain + _SAVE_SECONDS:g} or more",
        )


def most_taken(pods: Sequence[Pod]) -> dict[str, float]:
    """What all pods of these templates take together, by the names that a quota has for it."""
    taken: dict[str, float] = {"pods": 0.0}
    for pod in pods:
        taken["pods"] += pod.num_replicas
        for which in ("requests", "limits"):
            for container in pod.containers:
                for name, quantity in resources(container, which).items():
                    key = f"{which}.{name}"
                    taken[key] = taken.get(key, 0.0) + amount(quantity) * pod.num_replicas
    return taken
