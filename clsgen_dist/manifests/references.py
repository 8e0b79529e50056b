"""Names that one object uses must exist in another: volumes, claims, keys, accounts, ports, quotas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from clsgen_dist.manifests.objects import Fault, Manifest, Pod, amount, name_of, of_kind, pods_of, resources
from clsgen_dist.manifests.pods import most_taken


def reference_faults(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """All names that lead nowhere, keys that stand open, and what does not fit into the quota."""
    for secret in of_kind(manifests, "Secret"):
        if secret.get("data") or secret.get("stringData"):
            yield Fault(
                name_of(secret), "holds its values, and manifests are copied and kept: make it by kubectl create secret"
            )
    pods = pods_of(manifests)
    accounts = {account["metadata"]["name"] for account in of_kind(manifests, "ServiceAccount")}
    for pod in pods:
        account = pod.spec.get("serviceAccountName", "default")
        if account not in accounts | {"default"}:
            yield Fault(pod.place, f"serviceAccountName {account}: there is no such ServiceAccount")
        yield from _volume_faults(pod, manifests)
        yield from _key_faults(pod, manifests)
    for service in of_kind(manifests, "Service"):
        yield from _service_faults(service, pods)
    used = {claim for pod in pods for claim in claims_of(pod)}
    for claim in of_kind(manifests, "PersistentVolumeClaim"):
        if claim["metadata"]["name"] not in used:
            yield Fault(name_of(claim), "no pod mounts it")
    yield from _sharing_faults(manifests, pods)
    yield from _default_faults(manifests, pods)
    yield from _quota_faults(manifests, pods)


def needed_secrets(manifests: Sequence[Manifest]) -> dict[str, dict[str, bool]]:
    """Secrets that pods read: name -> key -> whether pods start without it."""
    found: dict[str, dict[str, bool]] = {}
    for pod in pods_of(manifests):
        for kind, name, key, optional in _used_keys(pod):
            if kind == "Secret" and key is not None:
                known = found.setdefault(name, {})
                known[key] = optional and known.get(key, True)
    return found


def claims_of(pod: Pod) -> dict[str, str]:
    """Claims of a pod's volumes: name of the claim -> name of the volume."""
    return {
        volume["persistentVolumeClaim"]["claimName"]: name
        for name, volume in pod.volumes.items()
        if "persistentVolumeClaim" in volume
    }


def _volume_faults(pod: Pod, manifests: Sequence[Manifest]) -> Iterator[Fault]:
    templates = (pod.owner.get("spec") or {}).get("volumeClaimTemplates") or []
    own = {template["metadata"]["name"] for template in templates}
    mounted = set()
    for container in [*pod.init_containers, *pod.containers]:
        for mount in container.get("volumeMounts") or []:
            mounted.add(mount["name"])
            if mount["name"] not in pod.volumes.keys() | own:
                yield Fault(
                    pod.place, f"mounts volume {mount['name']} at {mount['mountPath']}; the pod has no such volume"
                )
    for name in sorted((pod.volumes.keys() | own) - mounted):
        yield Fault(pod.place, f"volume {name} is mounted nowhere")
    claims = {claim["metadata"]["name"] for claim in of_kind(manifests, "PersistentVolumeClaim")}
    for claim, volume in claims_of(pod).items():
        if claim not in claims:
            yield Fault(pod.place, f"volume {volume}: there is no PersistentVolumeClaim {claim}")


def _used_keys(pod: Pod) -> Iterator[tuple[str, str, str | None, bool]]:
    """What a pod reads from ConfigMaps and Secrets: kind, name, key (None for all) and whether it may be missing."""
    for volume in pod.volumes.values():
        for field, kind, name in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
            if field in volume:
                source = volume[field]
                keys = [item["key"] for item in source.get("items") or []] or [None]
                for key in keys:
                    yield kind, source[name], key, bool(source.get("optional"))
    for container in [*pod.init_containers, *pod.containers]:
        for entry in container.get("env") or []:
            for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                source = (entry.get("valueFrom") or {}).get(field)
                if source:
                    yield kind, source["name"], source["key"], bool(source.get("optional"))
        for entry in container.get("envFrom") or []:
            for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if field in entry:
                    yield kind, entry[field]["name"], None, bool(entry[field].get("optional"))


def _key_faults(pod: Pod, manifests: Sequence[Manifest]) -> Iterator[Fault]:
    maps = {m["metadata"]["name"]: m.get("data") or {} for m in of_kind(manifests, "ConfigMap")}
    for kind, name, key, optional in _used_keys(pod):
        if kind != "ConfigMap" or optional:
            continue
        if name not in maps:
            yield Fault(pod.place, f"there is no ConfigMap {name}")
        elif key is not None and key not in maps[name]:
            yield Fault(
                pod.place, f"ConfigMap {name} has no key {key}; it has {', '.join(sorted(maps[name])) or 'none'}"
            )


def selected(selector: Mapping[str, str] | None, pods: Sequence[Pod]) -> list[Pod]:
    """Pods with all the labels of a Service's selector."""
    return [pod for pod in pods if selector and selector.items() <= pod.labels.items()]


def _service_faults(service: Manifest, pods: Sequence[Pod]) -> Iterator[Fault]:
    place, spec = name_of(service), service["spec"]
    behind = selected(spec.get("selector"), pods)
    if not behind:
        yield Fault(place, f"its selector {dict(spec.get('selector') or {})} finds no pod")
    for port in spec.get("ports") or []:
        target = port.get("targetPort", port["port"])
        for pod in behind:
            if target_port(pod, target) is None:
                yield Fault(place, f"targetPort {target}: {pod.place} has no such port")


def target_port(pod: Pod, target: str | int) -> int | None:
    """Number of a port of a pod, given by name or number; None where no container opens it."""
    for container in pod.containers:
        for port in container.get("ports") or []:
            if target in (port["containerPort"], port.get("name")):
                return int(port["containerPort"])
    return None


def _sharing_faults(manifests: Sequence[Manifest], pods: Sequence[Pod]) -> Iterator[Fault]:
    """A volume of one node cannot be had by workers on several."""
    for claim in of_kind(manifests, "PersistentVolumeClaim"):
        name, modes = claim["metadata"]["name"], claim["spec"].get("accessModes") or []
        if {"ReadWriteMany", "ReadOnlyMany"} & set(modes):
            continue
        for pod in pods:
            if name in claims_of(pod) and pod.num_replicas > 1:
                yield Fault(
                    pod.place,
                    f"{pod.num_replicas} pods share the claim {name}, which is {', '.join(modes) or 'of no mode'}: on "
                    "several nodes it must be ReadWriteMany",
                )


def _default_faults(manifests: Sequence[Manifest], pods: Sequence[Pod]) -> Iterator[Fault]:
    """A LimitRange gives its limit to every container that names none, also to one that asks for more."""
    limits = [entry for m in of_kind(manifests, "LimitRange") for entry in m["spec"]["limits"]]
    for default in [entry.get("default") or {} for entry in limits if entry["type"] == "Container"]:
        for pod in pods:
            for container in [*pod.init_containers, *pod.containers]:
                for name, asked in resources(container, "requests").items():
                    limited = name in default and name not in resources(container, "limits")
                    if limited and amount(asked) > amount(default[name]):
                        yield Fault(
                            f"{pod.place}, container {container['name']}",
                            f"requests {asked} of {name}, and the LimitRange limits it to {default[name]}",
                        )


def _quota_faults(manifests: Sequence[Manifest], pods: Sequence[Pod]) -> Iterator[Fault]:
    """Services and training, with the largest of what is asleep beside them, must fit; else pods never come."""
    for quota in of_kind(manifests, "ResourceQuota"):
        hard = quota["spec"].get("hard") or {}
        asleep = [m for m in manifests if m["kind"] != "RayJob" and (m.get("spec") or {}).get("suspend")]
        awake = most_taken([pod for pod in pods if not any(pod.owner is m for m in asleep)])
        others = [most_taken([pod for pod in pods if pod.owner is m]) for m in asleep]
        for name, most in hard.items():
            largest = max((taken.get(name, 0.0) for taken in others), default=0.0)
            needed = awake.get(name, 0.0) + largest
            if name in awake.keys() | {key for taken in others for key in taken} and needed > amount(most):
                yield Fault(name_of(quota), f"{name}: {most}, but the pods here take up to {_plain(needed)}")
        held = len(of_kind(manifests, "PersistentVolumeClaim"))
        held += sum(len(m["spec"].get("volumeClaimTemplates") or []) for m in of_kind(manifests, "StatefulSet"))
        if held > amount(hard.get("persistentvolumeclaims", held)):
            yield Fault(name_of(quota), f"persistentvolumeclaims: {hard['persistentvolumeclaims']}, there are {held}")


def _plain(number: float) -> str:
    """Bytes as Gi, counts as they are."""
    return f"{number / 2**30:g}Gi" if number >= 2**20 else f"{number:g}"
