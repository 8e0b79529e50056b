"""Rules on the network: nobody is left open, and what a pod calls it may reach, by name, port and policy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clsgen_dist.manifests.objects import Fault, Manifest, Pod, name_of, of_kind, pods_of
from clsgen_dist.manifests.references import selected, target_port

_ADDRESS = re.compile(r"\b[a-z][a-z0-9+]*://(?:[^/@\s]*@)?([A-Za-z0-9.-]+):([0-9]+)")


@dataclass(frozen=True)
class Call:
    """A pod calls a host and port, as its environment, its command or its configuration says."""

    pod: Pod
    host: str
    port: int


def network_faults(manifests: Sequence[Manifest], calls: Sequence[Call]) -> Iterator[Fault]:
    """All pods that no policy guards, and all calls that lead nowhere or are not let through.

    Args:
        manifests: the objects.
        calls: what configurations say beside `written_calls`.
    """
    policies = of_kind(manifests, "NetworkPolicy")
    for pod in pods_of(manifests):
        for direction in ("Ingress", "Egress"):
            if not _policies_of(pod, policies, direction):
                yield Fault(pod.place, f"no NetworkPolicy limits its {direction.lower()}")
    for call in [*written_calls(manifests), *calls]:
        yield from _call_faults(call, manifests, policies)


def written_calls(manifests: Sequence[Manifest]) -> list[Call]:
    """Calls that stand as addresses in commands and environments."""
    found = []
    for pod in pods_of(manifests):
        for container in [*pod.init_containers, *pod.containers]:
            words = [*(container.get("command") or []), *(container.get("args") or [])]
            words += [entry["value"] for entry in container.get("env") or [] if isinstance(entry.get("value"), str)]
            found += [call for word in words for call in calls_in(pod, str(word))]
    return found


def calls_in(pod: Pod, text: str) -> list[Call]:
    """Addresses in a text, as calls of a pod; those of the pod itself are left out."""
    own = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104 - names that are left out, nothing is bound to them
    return [Call(pod, host, int(port)) for host, port in _ADDRESS.findall(text) if host not in own]


def _call_faults(call: Call, manifests: Sequence[Manifest], policies: Sequence[Manifest]) -> Iterator[Fault]:
    place, address = call.pod.place, f"{call.host}:{call.port}"
    service = _service(call, manifests)
    if service is None:
        if "." not in call.host:
            yield Fault(place, f"calls {address}; there is no Service {call.host}")
        return
    ports = {port["port"]: port.get("targetPort", port["port"]) for port in service["spec"].get("ports") or []}
    if call.port not in ports:
        yield Fault(place, f"calls {address}; {name_of(service)} has port {', '.join(map(str, ports))}")
        return
    for server in selected(service["spec"].get("selector"), pods_of(manifests)):
        port = target_port(server, ports[call.port])
        if port is None:
            continue  # a fault of the service, found there
        if not _lets_through(_policies_of(call.pod, policies, "Egress"), "egress", "to", server, server, port):
            yield Fault(place, f"calls {address}, and no NetworkPolicy lets it send to {server.place}, port {port}")
        if not _lets_through(_policies_of(server, policies, "Ingress"), "ingress", "from", call.pod, server, port):
            yield Fault(place, f"calls {address}, and no NetworkPolicy lets {server.place} receive it, port {port}")


def _service(call: Call, manifests: Sequence[Manifest]) -> Manifest | None:
    for service in of_kind(manifests, "Service"):
        name, namespace = service["metadata"]["name"], service["metadata"].get("namespace", "default")
        full = f"{name}.{namespace}"
        if call.host in (name, full, f"{full}.svc", f"{full}.svc.cluster.local"):
            return service
    return None


def _policies_of(pod: Pod, policies: Sequence[Manifest], direction: str) -> list[Manifest]:
    return [
        policy
        for policy in policies
        if direction in (policy["spec"].get("policyTypes") or ["Ingress"])
        and matches(policy["spec"].get("podSelector") or {}, pod.labels)
    ]


def _lets_through(policies: Sequence[Manifest], field: str, peers: str, peer: Pod, server: Pod, port: int) -> bool:
    """Whether any policy of a pod has a rule for this peer and this port of the server; without policies all pass."""
    if not policies:
        return True
    namespace = server.owner["metadata"].get("namespace", "default")
    return any(
        _has_port(rule.get("ports"), server, port) and _has_peer(rule.get(peers), peer, namespace)
        for policy in policies
        for rule in policy["spec"].get(field) or []
    )


def _has_port(ports: Sequence[Mapping[str, Any]] | None, server: Pod, port: int) -> bool:
    for entry in ports or []:
        first = entry.get("port", port)
        first = target_port(server, first) if isinstance(first, str) else first
        if entry.get("protocol", "TCP") == "TCP" and first is not None and first <= port <= entry.get("endPort", first):
            return True
    return not ports


def _has_peer(peers: Sequence[Mapping[str, Any]] | None, peer: Pod, namespace: str) -> bool:
    if not peers:
        return True
    for entry in peers:
        if "ipBlock" in entry:
            continue  # pods have addresses that no manifest knows
        there = {"kubernetes.io/metadata.name": namespace}
        if "namespaceSelector" in entry and not matches(entry["namespaceSelector"], there):
            continue
        if "podSelector" not in entry or matches(entry["podSelector"], peer.labels):
            return True
    return False


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether labels are selected; an empty selector selects all."""
    if not (selector.get("matchLabels") or {}).items() <= labels.items():
        return False
    for wanted in selector.get("matchExpressions") or []:
        key, operator, values = wanted["key"], wanted["operator"], wanted.get("values") or []
        holds = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not holds[operator]:
            return False
    return True
